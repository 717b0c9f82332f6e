"""Consistency of a model's answers when a query is said in other words.

An answer that stays where it is need not be right, and one that moves may become so: figures of the first kind are
read beside the scores of both wordings.
"""

from __future__ import annotations

import numpy as np

from hero_plugin.metrics import temporal_iou

__all__ = ["CONSISTENCY", "RIGHT", "consistency"]

RIGHT = 0.5
"""Overlap with the annotation from which an answer counts as right."""

CONSISTENCY = ("overlap", "same@0.5", "same@0.7", "stays right", "turns right")
"""Of pairs of answers, in percent: their mean overlap; the share with an overlap of 0.5 and of 0.7 or more; the share
of the originals' right answers whose rewording's answer is right; the share of their wrong ones whose is."""


def consistency(
    original: np.ndarray, reworded: np.ndarray, original_iou: np.ndarray, reworded_iou: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each pair's part of each figure of ``CONSISTENCY``, and whether it counts for it.

    Args:
        original: (..., 2), the moments answered to the original wording.
        reworded: (..., 2), those answered to the other wording, in the same unit.
        original_iou: (...), IoU of ``original`` with the annotation.
        reworded_iou: (...), IoU of ``reworded`` with it.

    Returns:
        Values (..., 5) in percent, and weights (..., 5) of 0 and 1: a figure is the weighted mean over pairs.

    >>> values, weights = consistency(np.array([[0.0, 4]]), np.array([[0.0, 8]]), np.array([0.9]), np.array([0.4]))
    >>> values.tolist(), weights.tolist()
    ([[50.0, 100.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0, 0.0]])
    """
    overlap = temporal_iou(original, reworded)
    right, still = np.asarray(original_iou) >= RIGHT, np.asarray(reworded_iou) >= RIGHT
    values = np.stack([overlap, overlap >= 0.5, overlap >= 0.7, still, still], axis=-1) * 100.0
    every = np.ones_like(overlap)
    return values, np.stack([every, every, every, right, ~right], axis=-1).astype(np.float64)
