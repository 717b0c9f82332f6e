"""The bridge from unknown words to known ones, against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import Bridge
from tests.core.bases import quick


def by_hand(word, known, neighbours, temperature, nearest):
    """The mixture for one word, by loops."""
    cosines = [float(word @ row / np.linalg.norm(word) / np.linalg.norm(row)) for row in known]
    best = sorted(range(len(known)), key=lambda row: -cosines[row])[:neighbours]
    if cosines[best[0]] <= nearest:
        return word
    weights = [np.exp(cosines[row] / temperature) for row in best]
    return sum(weight * known[row] for weight, row in zip(weights, best, strict=True)) / sum(weights)


@quick
@given(st.integers(1, 9), st.integers(1, 6), st.floats(0.05, 2.0), st.floats(-1.0, 0.9), st.integers(0, 10**6))
def test_the_formula(known, neighbours, temperature, nearest, seed):
    rng = np.random.default_rng(seed)
    table, words = rng.normal(size=(known, 4)), rng.normal(size=(3, 4))
    bridge = Bridge(torch.from_numpy(table), neighbours, temperature, nearest)
    expected = np.stack([by_hand(word, table, neighbours, temperature, nearest) for word in words])
    np.testing.assert_allclose(bridge(torch.from_numpy(words)).numpy(), expected, atol=1e-5)  # cosines in float32


def test_a_word_near_nothing_and_a_zero_vector_stay_themselves():
    bridge = Bridge(torch.eye(4)[:2])
    words = torch.stack([torch.eye(4)[3], torch.zeros(4)])
    assert torch.equal(bridge(words), words)


def test_words_of_any_shape_and_no_words():
    bridge = Bridge(torch.randn(3, 4))
    assert bridge(torch.randn(2, 5, 4)).shape == (2, 5, 4)
    assert bridge(torch.randn(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("change", [{"known": torch.randn(0, 4)}, {"neighbours": 0}, {"temperature": 0.0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=r"at least (one word|1)"):
        Bridge(**{"known": torch.randn(3, 4), **change})
