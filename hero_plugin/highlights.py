"""Highlight detection as QVHighlights scores it: average precision of the clips' ranking, hit rate of the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hero_plugin.ragged import padded, percent, sum_kept

LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}
"""A clip is a highlight for an annotator who scored it this much, of 0 to 4, or more."""
ANNOTATORS = 3
CLIP_LENGTH = 2.0
"""Seconds."""


def clip_scores(clips: Sequence[int], scores: ArrayLike, duration: float) -> np.ndarray:
    """Return the annotators' scores of every clip of a video (T, 3), 0 for a clip without scores.

    Args:
        clips: (C,) clips with scores.
        scores: (C, 3).
        duration: Seconds; a last piece of less than 2 s is no clip.

    Raises:
        ValueError: A clip has other than three scores, or is not in the video.
    """
    table = np.zeros((int(duration / CLIP_LENGTH), ANNOTATORS))
    values = np.asarray(scores, dtype=np.float64)
    if len(clips) and values.shape != (len(clips), ANNOTATORS):
        raise ValueError(f"scores must be (C, {ANNOTATORS})=({len(clips)}, {ANNOTATORS}), got {values.shape}")
    outside = [clip for clip in clips if not 0 <= clip < len(table)]
    if outside:
        raise ValueError(f"clips must be 0 to {len(table) - 1} in a video of {duration:g} s, got {outside}")
    if len(clips):
        table[np.asarray(clips)] = values
    return table


def highlight_scores(
    saliency: Sequence[Sequence[float]], annotated: Sequence[np.ndarray]
) -> dict[str, dict[str, float]]:
    """Compute mAP and hit rate at each level, in percent with two decimals.

    The figures are those of QVHighlights' official script, to the last digit, and so are its peculiarities:

    * Equal scores share one rank. Precision at a rank is the best of this and all lower ranks; AP is its mean
      over the ranks that hold a highlight.
    * An annotator without highlights gives AP 0, one who scored all clips so gives AP 1.
    * Scores beyond the video's clips are cut off, missing ones are 0. The hit rate looks at all scores, and
      finds no highlight beyond the last clip; of equal ones it takes the first.

    Args:
        saliency: For each of Q queries, one score per clip, at least one.
        annotated: For each of the same queries, (T, 3); see ``clip_scores``.

    Returns:
        ``{"HL-min-Fair": {"HL-mAP": ..., "HL-Hit1": ...}, "HL-min-Good": ..., "HL-min-VeryGood": ...}``.

    Raises:
        ValueError: A query has no scores or clips, or the numbers of queries differ.
    """
    if len(saliency) != len(annotated):
        raise ValueError(f"saliency and annotated must be of the same queries, got {len(saliency)}, {len(annotated)}")
    predicted, given = padded(saliency, -np.inf)
    truth, clips = padded(annotated, -1.0, (ANNOTATORS,))
    for name, counts in (("saliency", given), ("annotated", clips)):
        if not counts.all():
            raise ValueError(f"{name} must have a clip or more for each query, query {counts.argmin()} has none")
    queries, first = np.arange(len(truth)), predicted.argmax(axis=1)
    there = truth[queries, np.minimum(first, clips - 1)].max(axis=1, initial=0.0, where=(first < clips)[:, None])
    ranking = _Ranking.of(_fitted(predicted, given, clips, truth.shape[1]))
    by_rank = np.take_along_axis(truth, ranking.order[..., None], axis=1).transpose(0, 2, 1)
    return {
        f"HL-min-{name}": {
            "HL-mAP": percent(ranking.average_precision(by_rank >= level).mean()),
            "HL-Hit1": percent(np.mean(there >= level)),
        }
        for name, level in LEVELS.items()
    }


def _fitted(predicted: np.ndarray, given: np.ndarray, clips: np.ndarray, longest: int) -> np.ndarray:
    """A score for each clip: (Q, longest), 0 where none was given, -inf after the video's end."""
    width = min(predicted.shape[1], longest)
    scores = np.zeros((len(predicted), longest))
    scores[:, :width] = np.where(np.arange(width) < given[:, None], predicted[:, :width], 0.0)
    return np.where(np.arange(longest) < clips[:, None], scores, -np.inf)


class _Ranking:
    """Clips by falling score (Q, T), those with equal scores as one group."""

    def __init__(self, order: np.ndarray, first: np.ndarray, last: np.ndarray) -> None:
        self.order = order
        self.first = first
        """Where the group starts that a place belongs to."""
        self.last = last
        """Is a place the end of its group?"""

    @classmethod
    def of(cls, scores: np.ndarray) -> _Ranking:
        order = (-scores).argsort(axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=1)
        differs = ranked[:, 1:] != ranked[:, :-1]
        edge = np.ones((len(scores), 1), dtype=bool)
        begins, last = np.hstack([edge, differs]), np.hstack([differs, edge])
        first = np.maximum.accumulate(np.where(begins, np.arange(scores.shape[1]), 0), axis=1)
        return cls(order, first, last)

    def average_precision(self, labels: np.ndarray) -> np.ndarray:
        """labels: (Q, annotators, T) in ranked order, false after the video's end -> (Q, annotators)."""
        true = labels.cumsum(axis=-1)
        earlier = np.take_along_axis(true - labels, self.first[:, None], axis=-1)
        gains = (self.last[:, None] & (true != earlier))[..., ::-1]
        precision = np.where(self.last[:, None], true / np.arange(1, labels.shape[-1] + 1), 0.0)
        best = np.maximum.accumulate(precision[..., ::-1], axis=-1)  # the clips after the end cannot raise it
        rows = best.reshape(-1, best.shape[-1]), gains.reshape(-1, best.shape[-1])
        return sum_kept(*rows).reshape(labels.shape[:2]) / np.maximum(gains.sum(axis=-1), 1)
