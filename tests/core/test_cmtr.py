"""CMTR: which words a query may lose, how often, and what stands in for them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import CMTR
from tests.core.bases import lengths_mask, quick, shake

ratios = st.floats(0.01, 0.99)


@given(
    words=st.lists(st.integers(0, 6), min_size=1, max_size=4).map(tuple),
    ratio=ratios,
    levels=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 999),
)
@quick
def test_never_touches_padding_keeps_one_and_loses_one(words, ratio, levels, seed):
    torch.manual_seed(seed)
    mask = lengths_mask(words)
    dropped = CMTR(3, levels, ratio).draw(mask)
    assert dropped.dtype == torch.bool and dropped.shape == (levels, *mask.shape)
    assert not dropped[:, mask == 0].any()
    for length, lost in zip(words, dropped.sum(-1).T, strict=True):
        if length > 1:
            assert (lost >= 1).all() and (lost <= length - 1).all()


def test_real_words_need_not_come_first():
    mask = torch.tensor([[0, 1, 0, 1, 0.0], [0, 0, 0, 0, 1]]).expand(500, -1, -1).reshape(1000, 5)
    dropped = CMTR(3, 2, 0.5).draw(mask)
    assert not dropped[:, mask == 0].any()
    assert (dropped[:, ::2].sum(-1) == 1).all()


@pytest.mark.parametrize("length", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7])
def test_every_word_is_masked_as_often_as_the_rule_says(length, ratio):
    """r, plus the queries that would have lost nothing, less those that would have lost everything, shared evenly."""
    rule = ((1 - ratio) ** length - ratio**length) / length if length > 1 else 0.0
    draws = 40000
    rate = CMTR(3, 1, ratio).draw(torch.ones(draws, length))[0].double().mean(0)
    deviation = (0.25 / draws) ** 0.5
    assert (rate - (ratio + rule)).abs().max() < 5 * deviation


def test_levels_draw_their_own_masks():
    dropped = CMTR(3, 4, 0.5).draw(torch.ones(50, 10)).double()
    for i in range(4):
        for j in range(i):
            agreement = (dropped[i] == dropped[j]).double().mean()
            assert 0.4 < agreement < 0.6


def test_same_seed_same_bits():
    cmtr, mask = CMTR(3, 4), torch.ones(3, 9)
    torch.manual_seed(5)
    first = cmtr.draw(mask)
    torch.manual_seed(5)
    assert torch.equal(first, cmtr.draw(mask))
    assert not torch.equal(first, cmtr.draw(mask))


def test_a_generator_of_ones_own_leaves_torchs_alone():
    cmtr, mask, state = CMTR(3, 4), torch.ones(3, 9), torch.get_rng_state()
    draws = [cmtr.draw(mask, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draws)
    assert torch.equal(state, torch.get_rng_state())


@given(levels=st.sampled_from([1, 2, 4]), length=st.integers(1, 5), seed=st.integers(0, 99))
@quick
@torch.no_grad()
def test_equals_a_loop(levels, length, seed):
    torch.manual_seed(seed)
    cmtr = shake(CMTR(3, levels).double())
    query = torch.randn(levels, 2, length, 3, dtype=torch.float64)
    masked, dropped = cmtr(query, torch.ones(2, length))
    for i in range(levels):
        for b in range(2):
            for word in range(length):
                expected = cmtr.mask_token[i, 0, 0] if dropped[i, b, word] else query[i, b, word]
                assert torch.equal(masked[i, b, word], expected)


def test_the_mask_token_starts_at_zero_and_is_learned():
    cmtr = CMTR(3, 2, 0.5)
    query = torch.randn(2, 4, 6, 3, requires_grad=True)
    masked, dropped = cmtr(query, torch.ones(4, 6))
    assert not masked[dropped].any()
    masked.sum().backward()
    assert torch.equal(query.grad[..., 0], (~dropped).float())
    assert torch.equal(cmtr.mask_token.grad[:, 0, 0, 0], dropped.sum((1, 2)).float())


def test_says_which_shape_is_wrong():
    with pytest.raises(ValueError, match=r"levels must be \(N, B, L, D\)=\(4, 2, 6, 3\), got \(4, 2, 5, 3\)"):
        CMTR(3)(torch.randn(4, 2, 5, 3), torch.ones(2, 6))


@given(st.integers(2, 9), st.integers(0, 8), st.integers(0, 99))
def test_a_part_of_a_batch_gets_the_masks_of_the_whole(rows, first, seed):
    chosen = [(first + place) % rows for place in range(max(1, rows // 2))]
    cmtr, mask = CMTR(4, levels=3), lengths_mask([1 + row % 5 for row in range(rows)])
    levels = torch.randn(3, rows, mask.shape[1], 4)
    _, whole = cmtr(levels, mask, torch.Generator().manual_seed(seed))
    _, part = cmtr(levels[:, chosen], mask[chosen], torch.Generator().manual_seed(seed), (chosen, rows))
    assert torch.equal(part, whole[:, chosen])


@given(levels=st.sampled_from([1, 2, 4]), length=st.integers(1, 5), size=st.floats(0.1, 2.0), seed=st.integers(0, 99))
@quick
@torch.no_grad()
def test_noise_moves_the_drawn_words_by_a_share_of_their_length(levels, length, size, seed):
    cmtr = CMTR(6, levels, 0.5, "noise", size)
    assert not list(cmtr.parameters())
    query = torch.randn(levels, 3, length, 6)
    masked, dropped = cmtr(query, torch.ones(3, length), torch.Generator().manual_seed(seed))
    moved = (masked - query).norm(dim=-1)
    torch.testing.assert_close(moved, dropped * size * query.norm(dim=-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(dropped, CMTR(6, levels, 0.5).draw(torch.ones(3, length), torch.Generator().manual_seed(seed)))


def test_noise_has_no_favourite_direction():
    query = torch.ones(1, 20000, 1, 3)
    masked, dropped = CMTR(3, 1, 0.9, "noise")(query, torch.ones(20000, 1), torch.Generator().manual_seed(0))
    mean = (masked - query)[dropped].mean(0)
    assert mean.abs().max() < 5 * 0.9 / dropped.sum() ** 0.5


def test_noise_of_a_part_of_a_batch_is_that_of_the_whole():
    cmtr, mask, levels = CMTR(4, 3, 0.5, "noise"), torch.ones(6, 5), torch.randn(3, 6, 5, 4)
    whole, _ = cmtr(levels, mask, torch.Generator().manual_seed(1))
    part, _ = cmtr(levels[:, [4, 5, 0]], mask[[4, 5, 0]], torch.Generator().manual_seed(1), ([4, 5, 0], 6))
    assert torch.equal(part, whole[:, [4, 5, 0]])


def test_noise_keeps_the_type_and_the_gradient_of_the_words():
    words = torch.randn(2, 3, 4, 6, dtype=torch.bfloat16, requires_grad=True)
    masked, _ = CMTR(6, 2, 0.5, "noise")(words, torch.ones(3, 4))
    assert masked.dtype == torch.bfloat16
    masked.float().sum().backward()
    torch.testing.assert_close(words.grad, torch.ones_like(words))
