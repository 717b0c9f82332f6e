"""The bridge from unknown words to known ones, against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import Bridge
from tests.core.bases import quick


def by_hand(word, known, counts, neighbours, temperature, nearest):
    """The mixture for one word, by loops."""
    cosines = [float(word @ row / np.linalg.norm(word) / np.linalg.norm(row)) for row in known]
    weights = [
        count * np.exp(cosine / temperature) if cosine > nearest else 0
        for cosine, count in zip(cosines, counts, strict=True)
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
    expected = np.stack([by_hand(word, table, counts, neighbours, temperature, nearest) for word in words])
    np.testing.assert_allclose(bridge(torch.from_numpy(words)).numpy(), expected, atol=1e-5)  # cosines in float32


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


@pytest.mark.parametrize(
    "change", [{"known": torch.randn(0, 4)}, {"neighbours": 0}, {"temperature": 0.0}, {"counts": torch.zeros(3)}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=r"at least (one word|1)"):
        Bridge(**{"known": torch.randn(3, 4), **change})
