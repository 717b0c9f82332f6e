"""Moment retrieval and highlights by hand: small cases whose figures can be worked out on paper."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.integrations.data import words
from hero_plugin.integrations.scoring import intervals, metrics, open_vocabulary, qvhighlights
from hero_plugin.integrations.scoring.qvhighlights import (
    OVERLAPS,
    clip_scores,
    highlight_scores,
    padded,
    queries_by_length,
    qvhighlights_scores,
    retrieval_scores,
    sum_kept,
)


@given(st.integers(1, 12), st.integers(1, 300), st.floats(0.05, 1), st.integers(0, 2**32 - 1))
def test_kept_values_sum_to_the_last_bit_of_numpys_sum(rows, columns, share, seed):
    draw = np.random.default_rng(seed)
    values, keep = draw.standard_normal((rows, columns)), draw.random((rows, columns)) < share
    expected = [np.sum(row[kept]) for row, kept in zip(values, keep, strict=True)]
    np.testing.assert_array_equal(sum_kept(values, keep), expected)


def test_rows_of_different_lengths_are_filled_up():
    values, lengths = padded([[[1, 2]], [], [[3, 4], [5, 6]]], -1.0, (2,))
    assert values.tolist() == [[[1, 2], [-1, -1]], [[-1, -1], [-1, -1]], [[3, 4], [5, 6]]]
    assert lengths.tolist() == [1, 0, 2]


def full(predicted, truth, overlap="0.5"):
    scores = retrieval_scores([predicted], [truth])["full"]
    return scores["MR-mAP"][overlap], scores["MR-R1"][overlap]


TRUTH = [[0, 10], [20, 40]]


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([[0, 10, 0.9], [20, 40, 0.8]], (100.0, 100.0)),
        ([[50, 60, 0.9], [0, 10, 0.8], [20, 40, 0.7]], (66.67, 0.0)),  # precision 2/3 at recall 1/2 and 1
        ([[0, 10, 0.9], [0, 10, 0.8], [20, 40, 0.7]], (83.33, 100.0)),  # a window taken twice counts once
        ([[50, 60, 0.1], [0, 10, 0.9]], (50.0, 0.0)),  # mAP ranks by score, R1 takes the first as submitted
        ([[50, 60, 0.5], [0, 10, 0.5]], (25.0, 0.0)),  # equal scores stay in their order
        ([[5, 5, 0.9]], (0.0, 0.0)),  # a window without length
        ([[70, 80, 0.5]] * 10 + [[0, 10, 0.9]], (0.0, 0.0)),  # the eleventh does not count
    ],
)
def test_average_precision_and_first_window(predicted, expected):
    assert full(predicted, TRUTH) == expected


def test_overlap_at_the_threshold_counts():
    assert full([[0, 5, 1.0]], [[0, 10]], "0.5") == (100.0, 100.0)
    assert full([[0, 5, 1.0]], [[0, 10]], "0.55") == (0.0, 0.0)


def test_union_of_nothing_is_full_overlap_for_precision_alone():
    assert full([[7, 7, 1.0]], [[3, 3]], "0.95") == (100.0, 0.0)


def test_precision_divides_by_the_union_and_recall_by_the_hull():
    """Equal on paper, but 41.9 / 83.8 s is half in one rounding and just below it in the other."""
    assert full([[72.9, 145.7, 1.0]], [[61.9, 114.8]]) == (0.0, 100.0)


def test_a_range_keeps_the_annotated_windows_of_its_lengths():
    scores = retrieval_scores([[[20, 40, 1.0]], [[0, 200, 1.0]]], [TRUTH, [[0, 200]]])
    assert queries_by_length([TRUTH, [[0, 200]]]) == {"short": 1, "middle": 1, "long": 0, "full": 2}
    assert scores["short"]["MR-mAP"]["average"] == 0.0
    assert scores["middle"]["MR-mAP"]["average"] == scores["middle"]["MR-R1"]["0.95"] == 100.0
    assert all(math.isnan(value) for figures in scores["long"].values() for value in figures.values())
    assert scores["full"]["MR-mAP"]["average"] == 75.0  # windows beyond 150 s are in the full range alone


def highlights(saliency, *annotators, level="Fair"):
    scores = highlight_scores([saliency], [np.array(annotators).T])[f"HL-min-{level}"]
    return scores["HL-mAP"], scores["HL-Hit1"]


NONE, ALL = [0, 1, 1, 0], [2, 3, 4, 2]


@pytest.mark.parametrize(
    ("saliency", "annotators", "expected"),
    [
        ([4, 3, 2, 1], ([4, 4, 0, 0],) * 3, (100.0, 100.0)),
        ([1, 2, 3, 4], ([4, 0, 0, 0],) * 3, (25.0, 0.0)),
        ([1, 1, 1, 1], ([4, 0, 0, 0],) * 3, (25.0, 100.0)),  # one rank for all; the first is the hit
        ([4, 3, 2, 1], (NONE, ALL, ALL), (66.67, 100.0)),  # none: 0; all: 1
        ([1, 3, 2], ([0, 4, 0, 4],) * 3, (75.0, 100.0)),  # the missing fourth is 0: 1 and 2/4
        ([1, 3, 2, 0, 9], ([0, 4, 0, 4],) * 3, (75.0, 0.0)),  # the fifth is cut off, but is the hit
        ([3, 4, 2, 1], ([4, 0, 4, 0],) * 3, (66.67, 0.0)),  # 1/2 at the first is raised to 2/3
    ],
)
def test_highlights_by_hand(saliency, annotators, expected):
    assert highlights(saliency, *annotators) == expected


def test_levels_and_annotators_are_apart():
    annotators = ([2, 0, 0], [0, 3, 0], [0, 0, 4])
    assert highlights([3, 2, 1], *annotators) == (61.11, 100.0)
    assert highlights([3, 2, 1], *annotators, level="Good") == (27.78, 0.0)
    assert highlights([3, 2, 1], *annotators, level="VeryGood") == (11.11, 0.0)


def test_clips_without_scores_have_zeros_and_a_last_piece_is_no_clip():
    assert clip_scores([1], [[1, 2, 3]], 5.9).tolist() == [[0, 0, 0], [1, 2, 3]]
    assert clip_scores([1, 2], [[1, 2, 3], [4, 4, 4]], 5.9).tolist() == [[0, 0, 0], [1, 2, 3]]  # as data convert labels
    assert clip_scores([2], [[4, 4, 4]], 5.9).sum() == 0 == clip_scores([], [], 4).sum()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: retrieval_scores([[[0, 1, 1]]], []), "same queries, got 1 and 0"),
        (lambda: retrieval_scores([[[0, 1, 1]], []], [[[0, 1]]] * 2), "predicted .* query 1 has none"),
        (lambda: retrieval_scores([[[0, 1, 1]]], [[]]), "truth .* query 0 has none"),
        (lambda: highlight_scores([[]], [np.zeros((2, 3))]), "saliency .* query 0 has none"),
        (lambda: highlight_scores([[1]], [np.zeros((0, 3))]), "annotated .* query 0 has none"),
        (lambda: highlight_scores([[1]], []), "same queries, got 1, 0"),
        (lambda: retrieval_scores([[[math.nan, 1, 1]]], [[[0, 1]]]), "must be finite, got 1 numbers"),
        (lambda: retrieval_scores([[[0, 1, math.inf]]], [[[0, 1]]]), "must be finite, got 1 numbers"),
        (lambda: highlight_scores([[math.nan, 1]], [np.zeros((2, 3))]), "must be finite, got 1 numbers"),
        (lambda: clip_scores([3], [[1, 2, 3]], 6), r"0 to 2 in a video of 6 s, got \[3\]"),
        (lambda: clip_scores([0], [[1, 2]], 6), r"\(1, 3\), got \(1, 2\)"),
        (lambda: qvhighlights_scores([], []), "0 lines"),
        (lambda: qvhighlights_scores([{"qid": 1}], [{"qid": "1"}]), "0 shared"),
        (lambda: qvhighlights_scores([{"qid": 1}] * 2, [{"qid": 1}]), "2 lines with 1 qids"),
    ],
)
def test_what_does_not_fit_is_said(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("module", [intervals, metrics, open_vocabulary, qvhighlights, words])
def test_examples_of_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_the_result_has_the_layout_of_the_official_script():
    line = {"qid": 1, "pred_relevant_windows": [[0, 9, 0.8]], "pred_saliency_scores": [1, 2]}
    row = {"qid": 1, "relevant_windows": [[0, 9]], "duration": 4, "relevant_clip_ids": [1]}
    scores = qvhighlights_scores([line], [{**row, "saliency_scores": [[4, 3, 2]]}])
    assert list(scores) == ["brief", "HL-min-Fair", "HL-min-Good", "HL-min-VeryGood", "full", "long", "middle", "short"]
    assert list(scores["full"]["MR-mAP"]) == [*map(str, OVERLAPS), "average"]
    assert list(qvhighlights_scores([{"qid": 1, "pred_relevant_windows": [[0, 9, 0.8]]}], [row])) == [
        "brief",
        *("full", "long", "middle", "short"),
    ]
