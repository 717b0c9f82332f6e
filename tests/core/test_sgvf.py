"""SGVF against its formula, clip by clip."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import SGVF
from tests.core.bases import lengths_mask, quick, shake

DIM = 5


def loop(sgvf, video, levels, mask, gate):
    out = torch.empty(levels.shape[0], *video.shape, dtype=torch.float64)
    for i in range(levels.shape[0]):
        eye = torch.eye(DIM, dtype=torch.float64)
        q, k, v = (eye, eye, eye) if sgvf.projections is None else sgvf.projections[:, i, 0]
        for b in range(video.shape[0]):
            words = [word for word, real in zip(levels[i, b], mask[b], strict=True) if real]
            for t, clip in enumerate(video[b]):
                exps = [torch.exp((clip @ q * (word @ k)).sum() / math.sqrt(DIM)) for word in words]
                context = sum((e / sum(exps) * (word @ v) for e, word in zip(exps, words, strict=True)), 0 * clip)
                opened = 1 / (1 + torch.exp(-context))
                if gate == "residual":
                    opened = 1 + sgvf.strength[i, 0, 0] * (2 * opened.clone() - 1)
                out[i, b, t] = clip * opened
    return out


@given(
    count=st.sampled_from([1, 2, 4]),
    gate=st.sampled_from(["sigmoid", "residual"]),
    projections=st.booleans(),
    words=st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    clips=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@quick
@torch.no_grad()
def test_equals_a_loop(count, gate, projections, words, clips, seed):
    torch.manual_seed(seed)
    sgvf = shake(SGVF(DIM, count, projections, gate).double(), scale=1.0)
    mask = lengths_mask(words)
    video = torch.randn(len(words), clips, DIM, dtype=torch.float64)
    levels = torch.randn(count, *mask.shape, DIM, dtype=torch.float64)
    expected = loop(sgvf, video, levels, mask, gate)
    torch.testing.assert_close(sgvf(video, levels, mask), expected, rtol=0, atol=1e-10)


def test_residual_gate_starts_from_the_clips_as_they_are():
    video = torch.randn(2, 4, DIM)
    out = SGVF(DIM, 3)(video, torch.randn(3, 2, 6, DIM), torch.ones(2, 6))
    assert torch.equal(out, video.expand(3, -1, -1, -1))


def test_the_printed_gate_halves_clips_without_words():
    video = torch.randn(1, 4, DIM)
    out = SGVF(DIM, 2, gate="sigmoid")(video, torch.randn(2, 1, 3, DIM), torch.zeros(1, 3))
    torch.testing.assert_close(out, 0.5 * video.expand(2, -1, -1, -1))


def test_has_no_projections_by_default():
    assert [name for name, _ in SGVF(DIM).named_parameters()] == ["strength"]
    assert not list(SGVF(DIM, gate="sigmoid").parameters())


def test_says_which_shape_is_wrong():
    sgvf = SGVF(DIM, 4)
    with pytest.raises(ValueError, match=r"levels must be \(N, B, L, D\)=\(4, 2, 6, 5\), got \(3, 2, 6, 5\)"):
        sgvf(torch.randn(2, 4, DIM), torch.randn(3, 2, 6, DIM), torch.ones(2, 6))
    with pytest.raises(ValueError, match=r"video must be \(B, T, D\)=\(2, T, 5\), got \(1, 4, 5\)"):
        sgvf(torch.randn(1, 4, DIM), torch.randn(4, 2, 6, DIM), torch.ones(2, 6))
