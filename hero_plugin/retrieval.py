"""Moment retrieval as QVHighlights scores it: average precision of the ranked windows, recall of the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hero_plugin.ragged import padded, percent, sum_kept

OVERLAPS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
LENGTHS = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0), "full": (-np.inf, np.inf)}
"""Annotated windows of more than the first and at most the second number of seconds; `full` has them all."""
RANKED = 10
"""Windows of a query that count: the first ones as submitted, whatever their scores."""

Windows = Sequence[Sequence[float]]


def retrieval_scores(predicted: Sequence[Windows], truth: Sequence[Windows]) -> dict[str, dict[str, dict[str, float]]]:
    """Compute mAP and R1 at each overlap, in percent with two decimals, for short, middle, long and all windows.

    The figures are those of QVHighlights' official script, to the last digit, and so are its peculiarities:

    * Only the first ten windows count. They are ranked by score, equals staying in the order submitted, while
      R1 looks at the first window submitted.
    * A window takes the free annotated window that it overlaps most. Which of several equal overlaps it takes
      depends on numpy (``argsort``, backwards), there as here.
    * A length range keeps the queries with an annotated window in it, and only these windows of theirs.
    * Overlap is divided by the true union for mAP, by the hull for R1. A union of nothing (0 / 0, two windows
      without length, or one that ends as much before its start as the other after) counts as full overlap.

    Args:
        predicted: For each of Q queries, one or more ``(start, end, score)`` in seconds.
        truth: For each of the same queries, one or more ``(start, end)`` in seconds.

    Returns:
        ``{"short": {"MR-mAP": {"0.5": ..., "average": ...}, "MR-R1": {"0.5": ...}}, "middle": ...}``; NaN for a range
        without queries.

    Raises:
        ValueError: A query has no window, or the numbers of queries differ.
    """
    if len(predicted) != len(truth):
        raise ValueError(f"predicted and truth must be of the same queries, got {len(predicted)} and {len(truth)}")
    windows, found = padded([[window[:3] for window in query[:RANKED]] for query in predicted], 0.0, (3,))
    annotated, annotations = padded(truth, np.nan, (2,))
    for name, counts in (("predicted", found), ("truth", annotations)):
        if not counts.all():
            raise ValueError(f"{name} must have a window or more for each query, query {counts.argmin()} has none")
    precision, overlap, members = _by_range(windows, found, annotated)
    return {name: _summary(precision[rows], overlap[rows]) for name, rows in members.items()}


def queries_by_length(truth: Sequence[Windows]) -> dict[str, int]:
    """Return the number of queries in each length range."""
    return {name: int(kept.any(axis=1).sum()) for name, kept in _in_range(padded(truth, np.nan, (2,))[0]).items()}


def _summary(precision: np.ndarray, overlap: np.ndarray) -> dict[str, dict[str, float]]:
    """precision: (Q, overlaps); overlap: (Q,)."""
    names = [str(threshold) for threshold in OVERLAPS]
    if not len(overlap):
        nothing = dict.fromkeys(names, float("nan"))
        return {"MR-mAP": {**nothing, "average": float("nan")}, "MR-R1": nothing}
    means = precision.mean(axis=0)
    ap = {name: percent(mean) for name, mean in zip(names, means, strict=True)}
    recall = {str(threshold): percent(np.mean(overlap >= threshold)) for threshold in OVERLAPS}
    return {"MR-mAP": {**ap, "average": percent(means.mean())}, "MR-R1": recall}


def _in_range(annotated: np.ndarray) -> dict[str, np.ndarray]:
    """annotated: (Q, G, 2), nan where there is none -> by range (Q, G): is this window in it?"""
    length = annotated[..., 1] - annotated[..., 0]
    return {name: (shortest < length) & (length <= longest) for name, (shortest, longest) in LENGTHS.items()}


def _by_range(
    windows: np.ndarray, found: np.ndarray, annotated: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, slice]]:
    """All ranges at once: average precision (P, overlaps), overlap of the first window (P,), and the P of a range."""
    kept = _in_range(annotated)
    queries = {name: np.flatnonzero(each.any(axis=1)) for name, each in kept.items()}
    ends = np.cumsum([len(each) for each in queries.values()])
    members = {name: slice(end - len(queries[name]), end) for name, end in zip(queries, ends, strict=True)}
    query = np.concatenate(list(queries.values()))
    keep = np.concatenate([kept[name][rows] for name, rows in queries.items()])
    counts, truth = keep.sum(axis=1), annotated[query][keep]
    starts = np.cumsum(counts) - counts
    precision, overlap = np.zeros((len(query), len(OVERLAPS))), np.zeros(len(query))
    for count in np.unique(counts):  # rows of one length: argsort's choice among equals depends on the length
        rows = np.flatnonzero(counts == count)
        of_query = truth[starts[rows, None] + np.arange(count)]
        precision[rows], overlap[rows] = _score(windows[query[rows]], found[query[rows]], of_query)
    return precision, overlap, members


def _score(windows: np.ndarray, found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """windows: (Q, K, 3), of which the first `found` (Q,) are real; truth: (Q, G, 2) -> (Q, overlaps), (Q,)."""
    real = np.arange(windows.shape[1]) < found[:, None]
    overlaps = _union_overlap(windows, truth)
    nearest = truth[np.arange(len(truth)), overlaps[:, 0].argmax(axis=-1)]
    ranking = np.where(real, -windows[..., 2], np.inf).argsort(axis=1, kind="stable")
    hits = _greedy_hits(np.take_along_axis(overlaps, ranking[..., None], axis=1), real)
    return _average_precision(hits, real, truth.shape[1]), _hull_overlap(windows[:, 0], nearest)


def _greedy_hits(overlaps: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Which windows, best first, take an annotated one. overlaps: (Q, K, G); real: (Q, K) -> (Q, overlaps, K)."""
    queries, ranks, annotations = overlaps.shape
    order = overlaps.argsort(axis=-1)[..., ::-1]
    ranked = np.take_along_axis(overlaps, order, axis=-1)
    reached = ~(ranked[:, :, None, :] < np.array(OVERLAPS)[:, None]) & real[..., None, None]  # nan reaches any
    free = np.ones((queries, len(OVERLAPS), annotations), dtype=bool)
    hits = np.zeros((queries, len(OVERLAPS), ranks), dtype=bool)
    for rank in range(ranks):
        choice = order[:, rank]
        able = reached[:, rank] & np.take_along_axis(free, choice[:, None, :], axis=-1)
        hit = hits[..., rank] = able.any(axis=-1)
        query, threshold = np.nonzero(hit)
        free[query, threshold, choice[query, able.argmax(axis=-1)[hit]]] = False
    return hits


def _average_precision(hits: np.ndarray, real: np.ndarray, annotations: int) -> np.ndarray:
    """Area under the interpolated curve, as of PASCAL VOC 2011. hits: (Q, overlaps, K) -> (Q, overlaps)."""
    true, false = hits.cumsum(axis=-1), (~hits & real[:, None]).cumsum(axis=-1)
    edge = np.zeros((*hits.shape[:2], 1))
    precision = np.concatenate([true / (true + false), edge], axis=-1)
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    recall = np.concatenate([edge, true / annotations, edge + 1], axis=-1)
    gain, step = np.diff(recall) * precision, recall[..., 1:] != recall[..., :-1]
    return sum_kept(gain.reshape(-1, gain.shape[-1]), step.reshape(-1, gain.shape[-1])).reshape(hits.shape[:2])


def _union_overlap(windows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Overlap over true union of all with all: (Q, K, 3), (Q, G, 2) -> (Q, K, G)."""
    starts, ends = windows[:, :, None, 0], windows[:, :, None, 1]
    from_, to = truth[:, None, :, 0], truth[:, None, :, 1]
    inside = np.clip(np.minimum(ends, to) - np.maximum(starts, from_), 0, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        return inside / ((ends - starts) + (to - from_) - inside)


def _hull_overlap(windows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Overlap over hull of each with its own: (Q, 3), (Q, 2) -> (Q,); 0 for an empty hull."""
    inside = np.maximum(0, np.minimum(windows[:, 1], truth[:, 1]) - np.maximum(windows[:, 0], truth[:, 0]))
    hull = np.maximum(windows[:, 1], truth[:, 1]) - np.minimum(windows[:, 0], truth[:, 0])
    return np.divide(inside, hull, out=np.zeros_like(inside), where=hull != 0)
