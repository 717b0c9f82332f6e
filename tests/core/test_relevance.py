"""Clip relevance against its formulas, clip by clip."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hero_plugin import PairRelevance, wrap_model
from hero_plugin.losses import RankedRelevance
from tests.core import detr, emb
from tests.core.bases import lengths_mask, quick, shake

DIM = 4


def loop(head, video, levels, mask):
    out = torch.empty(video.shape[:3], dtype=torch.float64)
    for i in range(video.shape[0]):
        for b in range(video.shape[1]):
            words = [word for word, real in zip(levels[i, b], mask[b], strict=True) if real]
            sentence = sum(words, torch.zeros(DIM, dtype=torch.float64)) / max(1, len(words))
            asked = head.word.weight @ sentence + head.word.bias
            for t, clip in enumerate(video[i, b]):
                compared = head.clip.weight[:DIM] @ clip + head.clip.bias[:DIM]
                alone = head.clip.weight[DIM:] @ clip + head.clip.bias[DIM:]
                hidden = torch.clamp(compared * asked + alone, min=0)
                out[i, b, t] = head.score.weight[0] @ hidden + head.score.bias[0]
    return out


@given(
    levels=st.sampled_from([1, 2, 4]),
    words=st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    clips=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@quick
@torch.no_grad()
def test_equals_a_loop(levels, words, clips, seed):
    torch.manual_seed(seed)
    head, mask = shake(PairRelevance(DIM).double()), lengths_mask(words)
    video = torch.randn(levels, len(words), clips, DIM, dtype=torch.float64)
    query = torch.randn(levels, *mask.shape, DIM, dtype=torch.float64)
    torch.testing.assert_close(head(video, query, mask), loop(head, video, query, mask), rtol=0, atol=1e-10)


def test_says_which_shape_is_wrong():
    head = PairRelevance(DIM)
    with pytest.raises(ValueError, match=r"levels must be \(N, B, L, D\)=\(N, 2, 6, 4\), got \(2, 2, 5, 4\)"):
        head(torch.randn(2, 2, 7, DIM), torch.randn(2, 2, 5, DIM), torch.ones(2, 6))
    with pytest.raises(ValueError, match=r"video must be \(N, B, T, D\)=\(2, 2, T, 4\), got \(1, 2, 7, 4\)"):
        head(torch.randn(1, 2, 7, DIM), torch.randn(2, 2, 6, DIM), torch.ones(2, 6))


def ranked(score, mask, log_scale=0.0, offset=0.0):
    module = RankedRelevance().double()
    with torch.no_grad():
        module.log_scale.fill_(log_scale)
        module.offset.fill_(offset)
    return module(score, mask)


def test_a_ranking_score_becomes_logits_video_by_video():
    torch.manual_seed(0)
    score, mask = torch.randn(3, 6).double(), torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] + [0] * 5])
    logits = ranked(score, mask, math.log(2.0), -0.5)
    for row, real, found in zip(score, mask.bool(), logits, strict=True):
        assert torch.allclose(found[real], 2.0 * (row[real] - row[real].mean()) - 0.5)
        assert torch.isfinite(found).all()


def test_where_a_video_s_scores_lie_does_not_matter():
    torch.manual_seed(0)
    score, mask = torch.randn(3, 6).double(), torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [0] * 6])
    assert torch.allclose(ranked(score - 10.0, mask), ranked(score, mask))
    padded = score.masked_fill(mask == 0, -math.inf).requires_grad_()
    logits = ranked(padded, mask)
    assert torch.allclose(logits, ranked(score, mask))
    logits.sum().backward()
    assert torch.isfinite(padded.grad).all()


def test_only_a_score_that_ranks_is_calibrated():
    base = detr.qd_detr()
    assert wrap_model(base).hero.ranked is not None
    for choice in ({"calibrate": False}, {"relevance": "pair"}):
        assert wrap_model(base, **choice).hero.ranked is None
    assert wrap_model(emb.emb()).hero.ranked is None
    model = wrap_model(base)
    model(*detr.batch())
    means = (model.relevance * detr.batch()[3]).sum(1) / detr.batch()[3].sum(1)
    assert torch.allclose(means, torch.zeros_like(means), atol=1e-5)


@pytest.mark.parametrize(("here", "there"), [((1,), ()), ((), (1,))], ids=["older", "newer"])
def test_files_of_scalars_and_of_one_number_each_load(here, there):
    """What RankedRelevance learns was of shape () once; torch reads (1,) into that by itself."""
    model = nn.Sequential(RankedRelevance())
    if not here:  # as an older release has it
        model[0] = nn.Module()
        model[0].log_scale, model[0].offset = (nn.Parameter(torch.zeros(())) for _ in range(2))
    file = {"0.log_scale": torch.full(there, 2.0), "0.offset": torch.full(there, 3.0)}
    model.load_state_dict(file)
    assert [(p.item(), p.shape) for p in model.parameters()] == [(2.0, here), (3.0, here)]
    assert file["0.offset"].shape == there
