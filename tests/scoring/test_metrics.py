"""Scores against a literal loop over the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.adapters.emb.losses import temporal_iou as emb_temporal_iou
from hero_plugin.integrations.scoring.metrics import grounding_scores, query_scores, recall_at, scores_of, temporal_iou

times = st.integers(0, 60).map(lambda tenths: tenths / 2)
moments = st.lists(st.tuples(times, times, times, times), min_size=1, max_size=20).map(
    lambda rows: np.add([[sorted(row[:2]), sorted(row[2:])] for row in rows], [0.0, 0.25])
)


def loop_iou(one, other):
    """As EMB's evaluation writes it."""
    union = (min(one[0], other[0]), max(one[1], other[1]))
    inter = (max(one[0], other[0]), min(one[1], other[1]))
    return max(0.0, (inter[1] - inter[0]) / (union[1] - union[0]))


def loop_recall(ious, threshold):
    count = 0
    for iou in ious:
        if iou >= threshold:
            count += 1
    return count / len(ious) * 100.0


@given(moments)
def test_scores_equal_a_literal_loop(pairs):
    pred, truth = pairs[:, 0], pairs[:, 1]
    ious = [loop_iou(p, t) for p, t in zip(pred, truth, strict=True)]
    np.testing.assert_allclose(temporal_iou(pred, truth), ious, atol=1e-12)
    scores = grounding_scores(pred, truth)
    assert list(scores) == ["R1@0.3", "R1@0.5", "R1@0.7", "mIoU"]
    for threshold in (0.3, 0.5, 0.7):
        assert scores[f"R1@{threshold}"] == pytest.approx(loop_recall(ious, threshold), abs=1e-9)
    assert scores["mIoU"] == pytest.approx(np.mean(ious) * 100, abs=1e-9)


@given(moments)
def test_tensors_and_arrays_agree(pairs):
    as_tensors = emb_temporal_iou(torch.from_numpy(pairs[:, 0]), torch.from_numpy(pairs[:, 1]))
    np.testing.assert_array_equal(as_tensors.numpy(), temporal_iou(pairs[:, 0], pairs[:, 1]))


@given(moments)
def test_overlap_is_symmetric_bounded_and_one_with_itself(pairs):
    one, other = pairs[:, 0], pairs[:, 1]
    ious = temporal_iou(one, other)
    assert ((ious >= 0) & (ious <= 1)).all()
    np.testing.assert_array_equal(ious, temporal_iou(other, one))
    np.testing.assert_array_equal(temporal_iou(one, one), np.ones(len(one)))


def test_a_moment_broadcasts_against_many():
    table = temporal_iou(np.full((5, 1, 2), [0.0, 4.0]), np.array([[0.0, 2.0], [2.0, 6.0], [9.0, 12.0]]))
    assert table.shape == (5, 3)
    np.testing.assert_allclose(table[0], [0.5, 1 / 3, 0.0])


@pytest.mark.parametrize("degenerate", [[3.0, 3.0], [5.0, 1.0]])
def test_a_moment_without_length_overlaps_nothing(degenerate):
    pred = np.array([degenerate])
    assert temporal_iou(pred, pred)[0] == 0.0
    assert temporal_iou(pred, np.array([[0.0, 9.0]]))[0] == 0.0
    assert emb_temporal_iou(torch.tensor(pred), torch.tensor([[0.0, 9.0]]))[0] == 0.0


def test_a_recall_threshold_counts_its_own_value():
    assert recall_at(np.array([0.5, 0.49, 0.7]), 0.5) == pytest.approx(200 / 3)
    assert recall_at(np.array([0.25, 0.75]), 0.3) == 50.0


def test_no_queries_have_no_score():
    assert math.isnan(recall_at(np.zeros(0), 0.5))
    assert math.isnan(scores_of(np.zeros(0))["mIoU"])


@pytest.mark.parametrize("score", [scores_of, query_scores, lambda ious: recall_at(ious, 0.5)])
def test_an_overlap_that_is_not_known_is_no_miss(score):
    with pytest.raises(ValueError, match="IoUs must be numbers: 1 of 2 are NaN"):
        score([math.nan, 0.9])


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match="pred must be finite: 1 of 2 moments are not"):
        grounding_scores([[0, 1], [math.nan, 1]], [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"pred must be \(\.\.\., 2\), start and end, got \(4, 3\)"):
        temporal_iou(np.zeros((4, 3)), np.zeros((4, 2)))
