"""More padding changes nothing where there is something: values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import HEM, SGVF, HeroConfig, PairRelevance, hero_losses, wrap_model
from tests.core.bases import Inputs, dict_base, few, inputs, labels, lengths_mask, shake, tensors, tuple_base

DIM = 8
lengths = st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple)
more = st.integers(0, 3)
seeds = st.integers(0, 99)


def pad(tensor, extra, axis, noise=True):
    """``extra`` more positions along ``axis``, filled with noise: padding is not always zeros."""
    shape = list(tensor.shape)
    shape[axis] = extra
    filling = torch.randn(shape, dtype=tensor.dtype) if noise else torch.zeros(shape, dtype=tensor.dtype)
    return torch.cat([tensor, filling], axis)


def gradients(loss, module, *leaves):
    """Gradients of the parameters and of the leaves, zeros where there is none."""
    wanted = [*module.parameters(), *leaves]
    if not loss.requires_grad:
        return [torch.zeros_like(tensor) for tensor in wanted]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, found, strict=True)]


def same(before, after):
    for one, other in zip(before, after, strict=True):
        common, rest = tuple(slice(size) for size in one.shape), other.detach().clone()
        torch.testing.assert_close(one, other[common], rtol=0, atol=1e-10)
        rest[common] = 0.0
        assert not rest.any()


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def signal(out, mask):
    """A loss that weighs every real value differently."""
    real = out * mask.unsqueeze(-1) if out.ndim > mask.ndim else out * mask
    return (
        (real * torch.linspace(1, 2, out.shape[-1], dtype=out.dtype)).pow(2).sum() if out.ndim > 3 else real.sin().sum()
    )


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_hem_reads_words_alike_on_whichever_side_the_padding_is(norm):
    torch.manual_seed(0)
    hem = shake(HEM(DIM, 4, 1, 2, norm=norm)).eval()
    words, mask = torch.randn(2, 5, DIM), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    right = hem(words, mask)[:, 1, :2]
    for shift in (1, 2, 3):
        left = hem(words.roll(shift, 1), mask.roll(shift, 1))[:, 1, shift : shift + 2]
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


@given(words=lengths, extra=more, norm=st.sampled_from(["pre", "post"]), seed=seeds)
@few
def test_hem(words, extra, norm, seed):
    torch.manual_seed(seed)
    hem = shake(HEM(DIM, 4, 1, 2, norm=norm, identity_start=norm == "pre").double().eval())
    mask = lengths_mask(words, torch.float64)
    query = leaf(*mask.shape, DIM)
    wide, wide_mask = pad(query.detach(), extra, 1).requires_grad_(), pad(mask, extra, 1, noise=False)
    short, long = hem(query, mask), hem(wide, wide_mask)
    same([short], [long[:, :, : mask.shape[1]]])
    assert not long[1:, wide_mask == 0].any()
    same(
        gradients(signal(short, mask), hem, query),
        gradients(signal(long, wide_mask), hem, wide),
    )


@given(words=lengths, extra=more, clips=more, gate=st.sampled_from(["sigmoid", "residual"]), seed=seeds)
@few
def test_sgvf(words, extra, clips, gate, seed):
    torch.manual_seed(seed)
    sgvf = shake(SGVF(DIM, 2, True, gate).double())
    mask, video_mask = lengths_mask(words, torch.float64), torch.ones(len(words), 3, dtype=torch.float64)
    video, levels = leaf(len(words), 3, DIM), leaf(2, *mask.shape, DIM)
    wide_video = pad(video.detach(), clips, 1).requires_grad_()
    wide_levels = pad(levels.detach(), extra, 2).requires_grad_()
    wide_mask, wide_video_mask = pad(mask, extra, 1, noise=False), pad(video_mask, clips, 1, noise=False)
    short, long = sgvf(video, levels, mask), sgvf(wide_video, wide_levels, wide_mask)
    same([short], [long[:, :, :3]])
    same(
        gradients(signal(short, video_mask), sgvf, video, levels),
        gradients(signal(long, wide_video_mask), sgvf, wide_video, wide_levels),
    )


@given(words=lengths, extra=more, clips=more, seed=seeds)
@few
def test_pair_relevance(words, extra, clips, seed):
    torch.manual_seed(seed)
    head, mask = PairRelevance(DIM).double(), lengths_mask(words, torch.float64)
    video_mask = torch.ones(len(words), 3, dtype=torch.float64)
    video, levels = leaf(2, len(words), 3, DIM), leaf(2, *mask.shape, DIM)
    wide_video = pad(video.detach(), clips, 2).requires_grad_()
    wide_levels = pad(levels.detach(), extra, 2).requires_grad_()
    short = head(video, levels, mask)
    long = head(wide_video, wide_levels, pad(mask, extra, 1, noise=False))
    same([short], [long[:, :, :3]])
    same(
        gradients((short * video_mask).sin().sum(), head, video, levels),
        gradients((long * pad(video_mask, clips, 1, noise=False)).sin().sum(), head, wide_video, wide_levels),
    )


@given(clips=lengths, extra=more, kind=st.sampled_from(["clips", "bernoulli"]), seed=seeds)
@few
def test_losses(clips, extra, kind, seed):
    torch.manual_seed(seed)
    mask = lengths_mask(clips, torch.float64)
    before, after, wanted = leaf(*mask.shape), leaf(*mask.shape), labels(mask)
    wide = [pad(x.detach(), extra, 1).requires_grad_() for x in (before, after)]
    short = hero_losses(before, after, wanted, mask, kind)
    long = hero_losses(*wide, pad(wanted, extra, 1), pad(mask, extra, 1, noise=False), kind)
    same(list(short.values()), list(long.values()))
    nothing = torch.nn.Module()
    same(
        gradients(sum(short.values()), nothing, before, after),
        gradients(sum(long.values()), nothing, *wide),
    )


@pytest.mark.parametrize("build", [tuple_base, dict_base])
@pytest.mark.parametrize("config", [HeroConfig(), HeroConfig.paper(relevance="pair")])
def test_wrapped_model(build, config):
    model = shake(wrap_model(build().double(), config=config)).eval()
    short = inputs(dtype=torch.float64)
    long = Inputs(
        pad(short.video, 3, 1),
        pad(short.query, 2, 1),
        pad(short.video_mask, 3, 1, noise=False),
        pad(short.query_mask, 2, 1, noise=False),
    )
    results = []
    for batch in (short, long):
        batch.video.requires_grad_(), batch.query.requires_grad_()
        outputs = model(*batch)
        loss = 0.3 * torch.log1p(task_sum(outputs, batch.video_mask)) + model.weighted_hero_loss(
            labels(batch.video_mask)
        )
        results.append((outputs, model.relevance, gradients(loss, model, batch.video, batch.query)))
    (before, relevance, slopes), (after, wide_relevance, wide_slopes) = results
    real = short.video_mask.bool()
    clips = real.shape[1]
    for one, other in zip([*tensors(before), relevance], [*tensors(after), wide_relevance], strict=True):
        over_clips = one.shape == real.shape
        one, other = (one[real], other[:, :clips][real]) if over_clips else (one, other)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    same(slopes, wide_slopes)
    assert any(slope.any() for slope in slopes)


def task_sum(outputs, video_mask):
    """Like ``task_loss``, but over real clips only, and with the same denominators whatever the padding."""
    total = 0.0
    for tensor in tensors(outputs):
        if tensor.requires_grad:
            kept = tensor[video_mask.bool()] if tensor.shape == video_mask.shape else tensor
            total = total + F.softplus(kept).sum()
    return total
