"""The losses against their formulas, number by number."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import consistency_loss, hero_losses, relevance_loss
from tests.core.bases import lengths_mask, quick

lengths = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def loop_relevance(logits, labels, mask):
    terms = []
    for row, wanted, real in zip(logits.tolist(), labels.tolist(), mask.tolist(), strict=True):
        for x, y, exists in zip(row, wanted, real, strict=True):
            if exists:
                terms.append(-math.log(sigmoid(x)) if y else -math.log(1 - sigmoid(x)))
    return sum(terms) / len(terms) if terms else 0.0


def loop_clips(before, after, mask):
    divergences = []
    for p, q, real in zip(before.tolist(), after.tolist(), mask.tolist(), strict=True):
        places = [t for t, exists in enumerate(real) if exists]
        if places:
            p_sum, q_sum = sum(math.exp(p[t]) for t in places), sum(math.exp(q[t]) for t in places)
            pairs = [(math.exp(p[t]) / p_sum, math.exp(q[t]) / q_sum) for t in places]
            divergences.append(sum(a * math.log(a / b) for a, b in pairs))
    return sum(divergences) / len(divergences) if divergences else 0.0


def loop_bernoulli(before, after, mask):
    terms = []
    for p, q, real in zip(before.tolist(), after.tolist(), mask.tolist(), strict=True):
        for x, y, exists in zip(p, q, real, strict=True):
            if exists:
                a, b = sigmoid(x), sigmoid(y)
                terms.append(a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b)))
    return sum(terms) / len(terms) if terms else 0.0


LOOPS = {"clips": loop_clips, "bernoulli": loop_bernoulli}


def sample(clips, seed):
    torch.manual_seed(seed)
    mask = lengths_mask(clips)
    before, after = 2 * torch.randn(2, *mask.shape, dtype=torch.float64)
    return before, after, (torch.rand(mask.shape) < 0.4).float() * mask, mask


def close(loss, expected):
    assert loss.ndim == 0
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


@given(lengths, st.integers(0, 99))
@quick
def test_relevance_equals_a_loop(clips, seed):
    logits, _, labels, mask = sample(clips, seed)
    close(relevance_loss(logits, labels, mask), loop_relevance(logits, labels, mask))


@given(lengths, st.integers(0, 99))
@quick
def test_clips_of_which_nothing_is_known_are_no_part_of_relevance(clips, seed):
    logits, _, labels, mask = sample(clips, seed)
    known = (torch.rand(mask.shape) < 0.5).float()
    some = relevance_loss(logits.requires_grad_(), labels * known - (1 - known), mask)
    close(some, loop_relevance(logits.detach(), labels, mask * known))
    some.backward()
    assert not logits.grad[known == 0].any()


@given(lengths, st.integers(0, 99), st.sampled_from(["clips", "bernoulli"]))
@quick
def test_consistency_equals_a_loop_and_is_never_negative(clips, seed, kind):
    before, after, _, mask = sample(clips, seed)
    loss = consistency_loss(before, after, mask, kind)
    close(loss, LOOPS[kind](before, after, mask))
    assert loss >= 0
    close(consistency_loss(before, before, mask, kind), 0.0)


@given(lengths, st.integers(0, 99), st.sampled_from(["clips", "bernoulli"]))
@quick
def test_hero_losses_are_means_and_a_divergence(clips, seed, kind):
    before, after, labels, mask = sample(clips, seed)
    losses = hero_losses(before, after, labels, mask, kind)
    assert list(losses) == ["loss_relevance", "loss_consistency"]
    both = loop_relevance(before, labels, mask) + loop_relevance(after, labels, mask)
    close(losses["loss_relevance"], both / 2)
    close(losses["loss_consistency"], LOOPS[kind](before, after, mask))
    alone = hero_losses(before, None, labels, mask, kind)
    assert list(alone) == ["loss_relevance"]
    close(alone["loss_relevance"], loop_relevance(before, labels, mask))


@pytest.mark.parametrize("kind", ["clips", "bernoulli"])
@pytest.mark.parametrize("padding", [math.nan, math.inf, -math.inf, -1e30, 7.0])
def test_padding_is_never_read(kind, padding):
    before, after, labels, mask = sample((4, 2), 0)
    clean = hero_losses(before, after, labels, mask, kind)
    before, after, labels = (x.masked_fill(mask == 0, padding).requires_grad_() for x in (before, after, labels))
    losses = hero_losses(before, after, labels, mask, kind)
    sum(losses.values()).backward()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, clean[name], rtol=0, atol=0)
    for logits in (before, after):
        assert logits.grad.isfinite().all()
        assert not logits.grad[mask == 0].any()
        assert logits.grad[mask == 1].all()


@pytest.mark.parametrize("kind", ["clips", "bernoulli"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_are_finite(kind, dtype):
    before = torch.tensor([[80.0, -80.0, 3.0]], dtype=dtype, requires_grad=True)
    after = torch.tensor([[-80.0, 80.0, 3.0]], dtype=dtype, requires_grad=True)
    losses = hero_losses(before, after, torch.tensor([[1, 0, 1]]), torch.ones(1, 3), kind)
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert before.grad.isfinite().all() and after.grad.isfinite().all()


def test_says_what_is_wrong():
    with pytest.raises(RuntimeError, match="labels are 1 inside, 0 outside: these are larger"):
        relevance_loss(torch.zeros(2, 5), torch.full((2, 5), 7.0), torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"labels must be \(B, T\)=\(2, 5\), got \(2, 4\)"):
        relevance_loss(torch.zeros(2, 5), torch.zeros(2, 4), torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"masked_logits must be \(B, T\)=\(2, 5\), got \(2, 6\)"):
        consistency_loss(torch.zeros(2, 5), torch.zeros(2, 6), torch.ones(2, 5))
    with pytest.raises(ValueError, match="kind must be one of 'clips', 'bernoulli', got 'l2'"):
        consistency_loss(torch.zeros(2, 5), torch.zeros(2, 5), torch.ones(2, 5), "l2")


@pytest.mark.parametrize("kind", ["clips", "bernoulli"])
def test_the_gradient_flows_into_both_sides_or_into_the_masked_one(kind):
    before, after, _, mask = sample((3, 2), 0)
    slopes = {}
    for gradient in ("both", "masked"):
        sides = before.clone().requires_grad_(), after.clone().requires_grad_()
        loss = consistency_loss(*sides, mask, kind, gradient)
        close(loss, LOOPS[kind](before, after, mask))
        slopes[gradient] = torch.autograd.grad(loss, sides, allow_unused=True)
    assert all(slope.any() for slope in slopes["both"]) and slopes["masked"][0] is None
    assert torch.equal(slopes["masked"][1], slopes["both"][1])
    with pytest.raises(ValueError, match="gradient must be one of 'both', 'masked', got 'clean'"):
        consistency_loss(before, after, mask, kind, "clean")
