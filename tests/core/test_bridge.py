"""The bridge from unknown words to known ones, against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import Bridge
from tests.core.bases import quick


def by_hand(word, known, counts, neighbours, temperature, nearest, expected):
    """The mixture for one word, by loops."""
    cosines = [float(word @ row / np.linalg.norm(word) / np.linalg.norm(row)) for row in known]
    weights = [
        count * np.exp(cosine / temperature + more) if cosine > nearest else 0
        for cosine, count, more in zip(cosines, counts, expected, strict=True)
    ]
    best = sorted(range(len(known)), key=lambda row: -weights[row])[:neighbours]
    if not weights[best[0]]:
        return word
    return sum(weights[row] * known[row] for row in best) / sum(weights[row] for row in best)


@quick
@given(st.integers(1, 9), st.integers(1, 6), st.floats(0.05, 2.0), st.floats(-1.0, 0.9), st.integers(0, 10**6))
def test_the_formula(known, neighbours, temperature, nearest, seed):
    rng = np.random.default_rng(seed)
    table, words, counts = rng.normal(size=(known, 4)), rng.normal(size=(3, 4)), rng.integers(1, 1000, size=known)
    bridge = Bridge(torch.from_numpy(table), torch.from_numpy(counts), neighbours, temperature, nearest)
    for more in (np.zeros((3, known)), rng.normal(size=(3, known))):
        mixed = [
            by_hand(word, table, counts, neighbours, temperature, nearest, each)
            for word, each in zip(words, more, strict=True)
        ]
        found = bridge(torch.from_numpy(words), torch.from_numpy(more) if more.any() else None)
        np.testing.assert_allclose(found.numpy(), mixed, atol=1e-5)  # cosines in float32


def test_counts_past_half_precision():
    known = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    words, counts = known + 0.1, torch.tensor([70_000, 257, 3])
    shares, rows = Bridge(known.half(), counts, nearest=-1.0).shares(words.half())
    expected, same = Bridge(known, counts, nearest=-1.0).shares(words)
    assert torch.equal(rows, same)
    torch.testing.assert_close(shares, expected, atol=1e-2, rtol=0)


def test_without_counts_every_known_word_counts_the_same():
    table, words = torch.randn(6, 4), torch.randn(3, 4)
    torch.testing.assert_close(Bridge(table)(words), Bridge(table, torch.full((6,), 7))(words))


def test_a_word_near_nothing_and_a_zero_vector_stay_themselves():
    bridge = Bridge(torch.eye(4)[:2])
    words = torch.stack([torch.eye(4)[3], torch.zeros(4)])
    assert torch.equal(bridge(words), words)


def test_the_shares_say_what_a_word_is_mixed_of():
    known = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-1.0, 0.0, 0.0]])
    bridge = Bridge(known, neighbours=2)
    words = torch.tensor([[0.6, 0.8, 0.0], [0.1, 1.0, 0.0], [0.0, 0.0, 1.0]])
    shares, rows = bridge.shares(words)
    nearest = torch.tensor(2.0).sigmoid()  # cosines 0.8 and 0.6 at temperature 0.1
    torch.testing.assert_close(shares, torch.tensor([[nearest, 1 - nearest], [1, 0], [0, 0]]))
    assert rows[0].tolist() == [1, 0]
    assert rows[1, 0] == 1
    torch.testing.assert_close((shares.unsqueeze(-1) * known[rows]).sum(-2)[:2], bridge(words)[:2])


def test_words_of_any_shape_and_no_words():
    bridge = Bridge(torch.randn(3, 4))
    assert bridge(torch.randn(2, 5, 4)).shape == (2, 5, 4)
    assert bridge(torch.randn(0, 4)).shape == (0, 4)


@quick
@given(st.integers(3, 60), st.integers(1, 20), st.floats(0.01, 0.99), st.integers(0, 10**6))
def test_a_bridge_of_tokens_knows_all_but_a_share_of_those_it_does_not_remember(tokens, size, share, seed):
    rows = torch.from_numpy(np.random.default_rng(seed).normal(size=(tokens, 4)))
    bridge = Bridge.of_tokens(rows, size, share, seed)
    remembered = [row for row in rows if (bridge.known == row).all(-1).any()]
    assert len(remembered) == len(bridge.known) == min(size, 2 * tokens // 3)
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    others = [rows[place] for place in order[len(remembered) : 3 * len(remembered)]]
    nearest = [max(float(torch.cosine_similarity(row, one, dim=0)) for one in remembered) for row in others]
    assert bridge.known_from == pytest.approx(np.quantile(nearest, share), abs=1e-5)
    bridged = bridge(torch.stack(others))
    for row, cosine, now in zip(others, nearest, bridged, strict=True):
        if cosine > bridge.known_from + 1e-5:
            assert torch.equal(now, row)
        elif 0.4 < cosine < bridge.known_from - 1e-5:
            assert not torch.equal(now, row)


def test_a_bridge_of_tokens_keeps_what_it_remembers_and_padding_and_mixes_what_lies_apart():
    torch.manual_seed(0)
    groups = torch.eye(6)[torch.arange(300) % 3]
    bridge = Bridge.of_tokens(groups + 0.01 * torch.randn(300, 6), share=0.1)
    apart = torch.tensor([[0.8, 0.0, 0.0, 0.6, 0.0, 0.0]])
    words = torch.cat([bridge.known[:5], torch.zeros(2, 6), apart, torch.eye(6)[5:]])
    now = bridge(words)
    assert torch.equal(now[:7], words[:7])
    torch.testing.assert_close(now[7], torch.eye(6)[0], atol=0.03, rtol=0)
    assert torch.equal(now[8], words[8])  # near nothing


@pytest.mark.parametrize("wrong", [{"tokens": torch.randn(2, 4)}, {"share": 0.0}, {"share": 1.0}, {"size": 0}])
def test_a_bridge_of_too_few_tokens_or_an_impossible_share_is_refused(wrong):
    with pytest.raises(ValueError, match=r"at least (three|1)"):
        Bridge.of_tokens(**{"tokens": torch.randn(9, 4), **wrong})


@pytest.mark.parametrize(
    "change", [{"known": torch.randn(0, 4)}, {"neighbours": 0}, {"temperature": 0.0}, {"counts": torch.zeros(3)}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=r"at least (one word|1)"):
        Bridge(**{"known": torch.randn(3, 4), **change})


def test_known_words_stay_themselves_to_the_last_and_a_checkpoint_keeps_the_choices():
    table = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    bridge = Bridge(table, known_from=1.0, neighbours=3)
    assert torch.equal(bridge(table), table)  # whose cosines with themselves are not all 1
    other = Bridge(torch.zeros_like(table))
    other.load_state_dict(bridge.state_dict())
    assert (other.known_from, other.neighbours) == (1.0, 3) and torch.equal(other(table), table)


def test_padding_among_tokens_is_not_remembered():
    tokens = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([tokens, torch.zeros(900, 8)])
    assert Bridge.of_tokens(padded).known.any(-1).all() and Bridge.of_tokens(padded).known_from > 0


def test_a_word_that_nothing_is_expected_for_stays_itself():
    table, word = torch.eye(4)[:2], torch.tensor([1.0, 0.9, 0.0, 0.0])
    bridge = Bridge(table)
    assert torch.equal(bridge(word, torch.full((2,), -torch.inf)), word)
    torch.testing.assert_close(bridge(word, torch.tensor([-torch.inf, 0.0])), table[1])


@pytest.mark.parametrize("change", [{"nearest": 40.0}, {"known_from": 5.0}])
def test_cosines_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match="is a cosine"):
        Bridge(torch.eye(4), **change)


def test_other_vectors_are_refused():
    with pytest.raises(TypeError, match=r"torch\.as_tensor"):
        Bridge(np.eye(4))
    with pytest.raises(ValueError, match="words have 5 numbers each, the known ones 4"):
        Bridge(torch.eye(4))(torch.zeros(2, 5))


def test_half_precision_around_it_does_not_round_the_cosines():
    known, words = torch.randn(40, 64), torch.randn(5, 64)
    bridge = Bridge(known, nearest=-1.0)
    with torch.autocast("cpu", torch.bfloat16):
        half = bridge(words)
    torch.testing.assert_close(half, bridge(words))
