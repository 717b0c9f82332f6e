"""Scores of temporal grounding: temporal IoU, R1@0.3/0.5/0.7 and mIoU, and consistency between two wordings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

THRESHOLDS = (0.3, 0.5, 0.7)
SCORES = (*(f"R1@{threshold}" for threshold in THRESHOLDS), "mIoU")
"""Names of the scores of ``scores_of`` and ``query_scores``, in their order."""


def temporal_iou(pred: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Return the temporal IoU (...) float64 of moments (..., 2): intersection over the hull of the two.

    For moments that overlap, the hull is their union; for the others the overlap is 0 either way. This is
    the reading of EMB, VSLNet and their relatives. A moment that ends before it starts overlaps nothing.

    Both are ``(start, end)`` in any one unit, and broadcast against each other. ``ValueError`` for another last axis,
    or a number that is not finite.

    >>> temporal_iou(np.array([[0.0, 10.0], [4.0, 6.0]]), np.array([5.0, 10.0]))
    array([0.5       , 0.16666667])
    """
    pred, truth = np.asarray(pred, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    for name, moments in (("pred", pred), ("truth", truth)):
        if moments.ndim == 0 or moments.shape[-1] != 2:
            raise ValueError(f"{name} must be (..., 2), start and end, got {moments.shape}")
        if not np.isfinite(moments).all():
            wrong = np.count_nonzero(~np.isfinite(moments).all(-1))
            raise ValueError(f"{name} must be finite: {wrong} of {moments[..., 0].size} moments are not")
    inside = np.minimum(pred[..., 1], truth[..., 1]) - np.maximum(pred[..., 0], truth[..., 0])
    hull = np.maximum(pred[..., 1], truth[..., 1]) - np.minimum(pred[..., 0], truth[..., 0])
    return np.where(hull > 0, np.maximum(inside, 0.0) / np.where(hull > 0, hull, 1.0), 0.0)


def nearest_iou(moments: np.ndarray, truths: Sequence[Sequence[tuple[float, float]]]) -> np.ndarray:
    """Return the IoU (Q,) of each moment (Q, 2) with the nearest annotated one; ``truths`` has one or more per query.

    >>> nearest_iou(np.array([[0.0, 10.0]]), [[(20.0, 30.0), (5.0, 10.0)]])
    array([0.5])
    """
    pairs = zip(moments, truths, strict=True)
    return np.asarray([temporal_iou(moment, np.asarray(truth)).max() for moment, truth in pairs], dtype=np.float64)


def recall_at(ious: ArrayLike, threshold: float) -> float:
    """Return the percentage of queries whose IoU (Q,) is at least ``threshold``; NaN without queries."""
    return _mean_percent(_known(ious) >= threshold)


def scores_of(ious: ArrayLike) -> dict[str, float]:
    """Return R1@0.3, R1@0.5, R1@0.7 and mIoU in percent, from the IoU (Q,) of each query's first moment."""
    scores = {f"R1@{threshold}": recall_at(ious, threshold) for threshold in THRESHOLDS}
    return {**scores, "mIoU": _mean_percent(_known(ious))}


def query_scores(ious: ArrayLike) -> np.ndarray:
    """Return each query's part (..., 4) of ``SCORES``, in percent, from IoUs (...); its mean is ``scores_of``."""
    values = _known(ious)
    return np.stack([*(values >= threshold for threshold in THRESHOLDS), values], axis=-1) * 100.0


def grounding_scores(pred: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Score one predicted moment per query against its annotated one, both (Q, 2) in seconds.

    Returns:
        ``{"R1@0.3", "R1@0.5", "R1@0.7", "mIoU"}`` in percent, computed in float64: the numbers of EMB's
        ``calculate_iou`` and ``calculate_iou_accuracy``.
    """
    return scores_of(temporal_iou(pred, truth))


def _known(ious: ArrayLike) -> np.ndarray:
    """Return IoUs as float64; raise ``ValueError`` for a NaN, which recall would count as a miss."""
    values = np.asarray(ious, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(f"IoUs must be numbers: {np.count_nonzero(np.isnan(values))} of {values.size} are NaN")
    return values


def _mean_percent(values: np.ndarray) -> float:
    return float(values.mean() * 100.0) if values.size else float("nan")


RIGHT = 0.5
"""Overlap with the annotation from which an answer counts as right."""

CONSISTENCY = ("overlap", "same@0.5", "same@0.7", "stays right", "turns right")
"""Of pairs of answers, in percent: their mean overlap; the share with an overlap of 0.5 and of 0.7 or more; the share
of the originals' right answers whose rewording's answer is right; the share of their wrong ones whose is."""


def consistency(
    original: np.ndarray, reworded: np.ndarray, original_iou: np.ndarray, reworded_iou: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each pair's part of each figure of ``CONSISTENCY``, and whether it counts for it.

    An answer that stays where it is need not be right, and one that moves may become so: read these figures
    beside the scores of both wordings.

    ``original`` and ``reworded`` (..., 2) are the moments answered to the two wordings, in one unit; ``original_iou``
    and ``reworded_iou`` (...) are their IoU with the annotation. Values (..., 5) are in percent, weights (..., 5) are 0
    or 1: a figure is the weighted mean over pairs.

    >>> values, weights = consistency(np.array([[0.0, 4]]), np.array([[0.0, 8]]), np.array([0.9]), np.array([0.4]))
    >>> values.tolist(), weights.tolist()
    ([[50.0, 100.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0, 0.0]])
    """
    stays = (np.asarray(original) == np.asarray(reworded)).all(-1)  # also where the answer has no length
    overlap = np.where(stays, 1.0, temporal_iou(original, reworded))
    right, still = np.asarray(original_iou) >= RIGHT, np.asarray(reworded_iou) >= RIGHT
    # Answers on one grid of clips overlap by exactly a half at times, which rounding must not decide.
    same = [overlap >= share - 1e-6 for share in (0.5, 0.7)]
    values = np.stack([overlap, *same, still, still], axis=-1) * 100.0
    every = np.ones_like(overlap)
    return values, np.stack([every, every, every, right, ~right], axis=-1).astype(np.float64)


UNSEEN = ("0", "1", "2+")
"""Groups by the number of unseen words."""


def by_unseen_words(numbers: Sequence[int]) -> dict[str, np.ndarray]:
    """Return masks (Q,) of the queries with no unseen word, with one, with two or more.

    >>> {group: mask.tolist() for group, mask in by_unseen_words([0, 3]).items()}
    {'0': [True, False], '1': [False, False], '2+': [False, True]}
    """
    counts = np.minimum(np.asarray(numbers, dtype=int), len(UNSEEN) - 1)
    return {group: counts == number for number, group in enumerate(UNSEEN)}


def by_label(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Return a mask (Q,) for each label, the label of the most queries first.

    >>> {group: mask.tolist() for group, mask in by_label(["synonym", "spelling", "synonym"]).items()}
    {'synonym': [True, False, True], 'spelling': [False, True, False]}
    """
    masks = {label: np.array([each == label for each in labels], dtype=bool) for label in dict.fromkeys(labels)}
    return dict(sorted(masks.items(), key=lambda item: -int(item[1].sum())))
