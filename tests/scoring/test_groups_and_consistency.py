"""Groups of queries, and whether answers move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hero_plugin.integrations.scoring.metrics import CONSISTENCY, UNSEEN, by_label, by_unseen_words, consistency


def partitions(masks, queries):
    return len(masks) == 0 or np.array_equal(np.sum(list(masks.values()), axis=0), np.ones(queries))


@given(st.lists(st.integers(0, 6)))
def test_every_query_has_one_number_of_unseen_words(numbers):
    masks = by_unseen_words(numbers)
    assert tuple(masks) == UNSEEN
    assert partitions(masks, len(numbers))
    assert [masks["2+"][row] for row in range(len(numbers))] == [number >= 2 for number in numbers]


@given(st.lists(st.sampled_from(["synonym", "hypernym", "spelling"])))
def test_every_query_has_one_label_and_the_commonest_comes_first(labels):
    masks = by_label(labels)
    assert set(masks) == set(labels)
    assert partitions(masks, len(labels))
    sizes = [int(mask.sum()) for mask in masks.values()]
    assert sizes == sorted(sizes, reverse=True)


moments = st.tuples(st.floats(0, 50), st.floats(0.5, 50)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(st.tuples(moments, st.floats(0, 1)), min_size=1))
@example([((5.0, 5.0), 0.0)])
def test_an_answer_that_does_not_move_is_consistent(pairs):
    answers, ious = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    values, weights = consistency(answers, answers, ious, ious)
    assert values[:, :3] == pytest.approx(100.0)
    assert np.all(values[:, 3][weights[:, 3] > 0] == 100)  # what was right stays right
    assert np.all(values[:, 4][weights[:, 4] > 0] == 0)  # nothing turns right
    assert np.all(weights[:, 3] + weights[:, 4] == 1)  # an original is right or wrong


@given(st.lists(st.tuples(moments, moments, st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_overlap_does_not_depend_on_which_is_the_original(pairs):
    one, two, iou_one, iou_two = (np.array(each) for each in zip(*pairs, strict=True))
    there, _ = consistency(one, two, iou_one, iou_two)
    back, _ = consistency(two, one, iou_two, iou_one)
    np.testing.assert_allclose(there[:, :3], back[:, :3])


def test_the_figures_of_four_pairs():
    original = np.array([[0.0, 10], [0, 10], [0, 10], [0, 10]])
    reworded = np.array([[0.0, 10], [0, 6], [20, 30], [0, 5]])
    values, weights = consistency(original, reworded, np.array([0.9, 0.6, 0.5, 0.1]), np.array([0.9, 0.5, 0.0, 0.7]))
    means = (values * weights).sum(axis=0) / weights.sum(axis=0)
    expected = {"overlap": 52.5, "same@0.5": 75, "same@0.7": 25, "stays right": 200 / 3, "turns right": 100}
    assert dict(zip(CONSISTENCY, means.tolist(), strict=True)) == pytest.approx(expected)


def test_answers_that_overlap_by_exactly_a_half_count():
    """Moments on one grid do so at times, and are computed in float32."""
    clip = np.float32(30.76 / 32)
    original = np.array([[first * clip, (first + 8) * clip] for first in range(24)], dtype=np.float32)
    half = np.array([[first * clip, (first + 4) * clip] for first in range(24)], dtype=np.float32)
    values, _ = consistency(original, half, np.ones(24), np.ones(24))
    assert (values[:, CONSISTENCY.index("same@0.5")] == 100).all()
