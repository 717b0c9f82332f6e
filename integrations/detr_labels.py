"""Training labels of the DETRs: spans, and the ranking of clips.

Labels that upstream draws at random while it reads are kept as what they are drawn from: a training step draws,
from torch's generator (``detr_draws.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hero_plugin.highlights import CLIP_LENGTH
from hero_plugin.integrations.moments import ON_EDGE, lighthouse_clips
from hero_plugin.integrations.records import Record


@dataclass(frozen=True, slots=True)
class DetrLabels:
    """Labels of one query of a video of T clips."""

    spans: np.ndarray
    """(moments, 2) float32: center and width, the video being 1 long."""
    hard_positive: int
    """The clip that annotators like best; -1 where they gave no scores."""
    hard_negative: int
    """Of the clips with scores, the one they like least; -1 likewise."""
    positives: np.ndarray
    """(T,) float32: weights for drawing clips that should score high."""
    negatives: np.ndarray
    """(T,) float32: weights for drawing clips that should score low."""
    scores: np.ndarray
    """(T,) float32: annotators' scores, summed; 1 inside a moment where there are none."""
    relevant: np.ndarray
    """(T,) float32: 1 for the clips of the query."""


def make_labels(record: Record, clips: int, clip_length: float, scored_length: float = CLIP_LENGTH) -> DetrLabels:
    """Make labels as Moment-DETR's successors do on QVHighlights, and lighthouse on data without saliency scores.

    Args:
        record: The query.
        clips: T, the clips of the video.
        clip_length: Seconds; 0 where the clips share the video's duration.
        scored_length: Seconds of the clips that annotators scored.
    """
    length = clip_length or record.duration / clips
    moments = seen_moments(record, clips, clip_length) or record.moments
    spans = span_labels(moments, clips * clip_length or record.duration)
    if any(scores for _, scores in record.saliency):
        places = np.array([place for place, _ in record.saliency])
        given = np.array([sum(scores) for _, scores in record.saliency])
        if abs(length - scored_length) > ON_EDGE:
            places, given = _on_other_clips(places, given, scored_length, clips, length)
        return _from_scores(places, given, clips, spans)
    return _from_moments(moments, clips, length, spans)


def is_cut(duration: Any, clips: Any, clip_length: float) -> Any:
    """Return whether a video lasts at least a clip beyond ``clips`` clips of ``clip_length`` s; numbers or tensors."""
    return duration - clips * clip_length >= clip_length


def seen_moments(record: Record, clips: int, clip_length: float) -> Sequence[tuple[float, float]]:
    """Return the moments, or what is left of them where the video was cut after ``clips`` clips."""
    covered = clips * clip_length
    if not clip_length or not is_cut(record.duration, clips, clip_length):
        return record.moments
    return [(start, min(end, covered)) for start, end in record.moments if start < covered]


def span_labels(moments: Sequence[tuple[float, float]], duration: float) -> np.ndarray:
    """Convert moments in seconds to (moments, 2) float32, center and width as shares of ``duration``."""
    ends = np.asarray(moments, np.float32).reshape(-1, 2) / np.float32(duration)
    return np.stack([ends.sum(-1) * np.float32(0.5), ends[:, 1] - ends[:, 0]], axis=-1)


def _on_other_clips(
    places: np.ndarray, given: np.ndarray, scored_length: float, clips: int, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Convert scores of clips of ``scored_length`` seconds to scores of ``clips`` clips of ``length`` seconds.

    A clip has the score of the one that its middle is in. A scored clip without a middle in it scores the clip that
    its own middle is in; of several, the best counts.
    """
    holds = np.floor((np.arange(clips) + 0.5) * length / scored_length)
    found: dict[int, float] = {}
    for place, score in zip(places, given, strict=True):
        rows = np.flatnonzero(holds == place)
        for row in rows if len(rows) else [min(int((place + 0.5) * scored_length / length), clips - 1)]:
            found[int(row)] = max(score, found.get(int(row), -np.inf))
    return np.array([*found]), np.array([*found.values()])


def _from_scores(places: np.ndarray, given: np.ndarray, clips: int, spans: np.ndarray) -> DetrLabels:
    """Make labels as ``get_saliency_labels_all`` does. A scored clip beyond the last counts as the last in every draw.

    Upstream clamps the hard pair alone: its easy positive points past the video then, and TR-DETR's mask of
    relevant clips becomes empty.
    """
    inside = np.minimum(places, clips - 1)
    order = np.argsort(given)  # not stable: which of equals comes first depends on numpy, upstream as here
    worst, best = int(inside[order[0]]), int(inside[order[-1]])
    positives = np.bincount(inside, minlength=clips).astype(np.float32)
    negatives = np.ones(clips, np.float32)
    negatives[places[places < clips]] = 0.0
    if not negatives.any():  # no clip is free: the hard pair twice
        positives, negatives = _only(best, clips), _only(worst, clips)
    scores, relevant = np.zeros((2, clips), np.float32)
    scores[places[places < clips]] = given[places < clips]
    relevant[inside] = 1.0
    return DetrLabels(spans, best, worst, positives, negatives, scores, relevant)


def _from_moments(
    moments: Sequence[tuple[float, float]], clips: int, clip_length: float, spans: np.ndarray
) -> DetrLabels:
    """Make labels as lighthouse's ``get_saliency_labels_sub_as_query``, but of the union of all moments."""
    inside, relevant = np.zeros((2, clips), np.float32)
    for start, end in moments:
        first, last = lighthouse_clips(start, end, clips, clip_length, ON_EDGE)
        inside[first : last + 1] = 1.0
        left, right = start / clip_length, end / clip_length
        first = min(math.floor(left + ON_EDGE), clips - 1)
        relevant[first : max(first + 1, math.ceil(right - ON_EDGE))] = 1.0
    outside = 1.0 - inside
    if outside.sum() < 2:  # too few to draw a pair from: the positives once more
        outside[:] = 0.0
    return DetrLabels(spans, -1, -1, inside, outside, inside, relevant)


def _only(place: int, clips: int) -> np.ndarray:
    weights = np.zeros(clips, np.float32)
    weights[place] = 1.0
    return weights
