"""QVHighlights' official evaluation: moment retrieval by mAP and R1, highlight detection by mAP and hit rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hero_plugin.integrations.scoring.metrics import temporal_iou


def padded(
    rows: Sequence[Sequence[Any]] | Sequence[np.ndarray], fill: float, width: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Pad R rows of items of shape ``width`` with ``fill``; return (R, longest, *width) float64, and lengths (R,).

    ``ValueError`` where a number is not finite; the figures would count it as a hit.
    """
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    values = np.full((len(rows), int(lengths.max(initial=0)), *width), fill)
    flat = [item for row in rows for item in row]
    if flat:
        numbers = np.array(flat, dtype=np.float64)
        if not np.isfinite(numbers).all():
            wrong = np.count_nonzero(~np.isfinite(numbers))
            raise ValueError(f"windows, scores and saliency must be finite, got {wrong} numbers that are not")
        values[np.arange(values.shape[1]) < lengths[:, None]] = numbers
    return values, lengths


def sum_kept(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return the sum (R,) of each row's kept values (R, C), bit for bit what ``np.sum(row[keep])`` gives.

    Zeros in place of the others would not do: numpy adds eight partial sums side by side, so that zeros in
    between change which values meet first, and so the last bit. Rows with equally many are summed together.
    """
    counts = keep.sum(axis=1)
    flat, starts = values[keep], np.cumsum(counts) - counts
    sums = np.zeros(len(values))
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        sums[rows] = flat[starts[rows, None] + np.arange(count)].sum(axis=1)
    return sums


def percent(fraction: float | np.floating[Any]) -> float:
    """Return a percentage with two decimals, rounded as printing rounds it."""
    return float(f"{100 * fraction:.2f}")


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
        ValueError: A query has no window, a number is not finite, or the numbers of queries differ.
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
    """Return mAP and R1 of queries with average precision (Q, overlaps) and overlap of the first window (Q,)."""
    names = [str(threshold) for threshold in OVERLAPS]
    if not len(overlap):
        nothing = dict.fromkeys(names, float("nan"))
        return {"MR-mAP": {**nothing, "average": float("nan")}, "MR-R1": nothing}
    means = precision.mean(axis=0)
    ap = {name: percent(mean) for name, mean in zip(names, means, strict=True)}
    recall = {str(threshold): percent(np.mean(overlap >= threshold)) for threshold in OVERLAPS}
    return {"MR-mAP": {**ap, "average": percent(means.mean())}, "MR-R1": recall}


def _in_range(annotated: np.ndarray) -> dict[str, np.ndarray]:
    """Return by range which annotated windows (Q, G, 2) are in it, (Q, G) bool; those that are NaN are in none."""
    length = annotated[..., 1] - annotated[..., 0]
    return {name: (shortest < length) & (length <= longest) for name, (shortest, longest) in LENGTHS.items()}


def _by_range(
    windows: np.ndarray, found: np.ndarray, annotated: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, slice]]:
    """Return average precision (P, overlaps) and overlap of the first window (P,) of all ranges, and each one's P."""
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
    """Score windows (Q, K, 3), the first ``found`` (Q,) of them real, against (Q, G, 2): (Q, overlaps), (Q,)."""
    real = np.arange(windows.shape[1]) < found[:, None]
    overlaps = _union_overlap(windows, truth)
    nearest = truth[np.arange(len(truth)), overlaps[:, 0].argmax(axis=-1)]
    ranking = np.where(real, -windows[..., 2], np.inf).argsort(axis=1, kind="stable")
    hits = _greedy_hits(np.take_along_axis(overlaps, ranking[..., None], axis=1), real)
    return _average_precision(hits, real, truth.shape[1]), temporal_iou(windows[:, 0, :2], nearest)


def _greedy_hits(overlaps: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return which windows, best first, take an annotated one: overlaps (Q, K, G), real (Q, K) -> (Q, overlaps, K)."""
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
    """Return the area under PASCAL VOC 2011's interpolated curve of hits (Q, overlaps, K): (Q, overlaps)."""
    true, false = hits.cumsum(axis=-1), (~hits & real[:, None]).cumsum(axis=-1)
    edge = np.zeros((*hits.shape[:2], 1))
    precision = np.concatenate([true / (true + false), edge], axis=-1)
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    recall = np.concatenate([edge, true / annotations, edge + 1], axis=-1)
    gain, step = np.diff(recall) * precision, recall[..., 1:] != recall[..., :-1]
    return sum_kept(gain.reshape(-1, gain.shape[-1]), step.reshape(-1, gain.shape[-1])).reshape(hits.shape[:2])


def _union_overlap(windows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return overlap over true union of all with all: (Q, K, 3), (Q, G, 2) -> (Q, K, G)."""
    starts, ends = windows[:, :, None, 0], windows[:, :, None, 1]
    from_, to = truth[:, None, :, 0], truth[:, None, :, 1]
    inside = np.clip(np.minimum(ends, to) - np.maximum(starts, from_), 0, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        return inside / ((ends - starts) + (to - from_) - inside)


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
        duration: Seconds; a last piece of less than 2 s is no clip, and its scores are left out.

    Raises:
        ValueError: A clip has other than three scores, or is not in the video.
    """
    table = np.zeros((int(duration / CLIP_LENGTH), ANNOTATORS))
    values = np.asarray(scores, dtype=np.float64)
    if len(clips) and values.shape != (len(clips), ANNOTATORS):
        raise ValueError(f"scores must be (C, {ANNOTATORS})=({len(clips)}, {ANNOTATORS}), got {values.shape}")
    whole = [place for place, clip in enumerate(clips) if clip != len(table) or clip * CLIP_LENGTH >= duration]
    outside = [clips[place] for place in whole if not 0 <= clips[place] < len(table)]
    if outside:
        raise ValueError(f"clips must be 0 to {len(table) - 1} in a video of {duration:g} s, got {outside}")
    if whole:
        table[np.asarray(clips)[whole]] = values[whole]
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
        ValueError: A query has no scores or clips, a number is not finite, or the numbers of queries differ.
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
    """Return a score for each clip: (Q, longest), 0 where none was given, -inf after the video's end."""
    width = min(predicted.shape[1], longest)
    scores = np.zeros((len(predicted), longest))
    scores[:, :width] = np.where(np.arange(width) < given[:, None], predicted[:, :width], 0.0)
    return np.where(np.arange(longest) < clips[:, None], scores, -np.inf)


@dataclass(frozen=True)
class _Ranking:
    """Clips by falling score (Q, T), those with equal scores as one group."""

    order: np.ndarray
    first: np.ndarray
    """Where the group starts that a place belongs to."""
    last: np.ndarray
    """Whether a place is the end of its group."""

    @classmethod
    def of(cls, scores: np.ndarray) -> "_Ranking":
        order = (-scores).argsort(axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=1)
        differs = ranked[:, 1:] != ranked[:, :-1]
        edge = np.ones((len(scores), 1), dtype=bool)
        begins, last = np.hstack([edge, differs]), np.hstack([differs, edge])
        first = np.maximum.accumulate(np.where(begins, np.arange(scores.shape[1]), 0), axis=1)
        return cls(order, first, last)

    def average_precision(self, labels: np.ndarray) -> np.ndarray:
        """Return (Q, annotators) for labels (Q, annotators, T) in ranked order, false after the video's end."""
        true = labels.cumsum(axis=-1)
        earlier = np.take_along_axis(true - labels, self.first[:, None], axis=-1)
        gains = (self.last[:, None] & (true != earlier))[..., ::-1]
        precision = np.where(self.last[:, None], true / np.arange(1, labels.shape[-1] + 1), 0.0)
        best = np.maximum.accumulate(precision[..., ::-1], axis=-1)  # the clips after the end cannot raise it
        rows = best.reshape(-1, best.shape[-1]), gains.reshape(-1, best.shape[-1])
        return sum_kept(*rows).reshape(labels.shape[:2]) / np.maximum(gains.sum(axis=-1), 1)


def qvhighlights_scores(
    submission: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Score a submission as the official evaluation does: same keys, same order, same two decimals.

    Args:
        submission: One mapping per query, with ``qid`` and ``pred_relevant_windows`` ([start, end, score] in seconds),
            ``pred_saliency_scores`` (one per clip of 2 s) or both; as in the official script, the first decides.
        annotations: Of the same queries, ``qid`` and ``relevant_windows`` for windows, ``duration``,
            ``relevant_clip_ids`` and ``saliency_scores`` for saliency.

    Returns:
        ``{"brief": {"MR-full-R1@0.5": ..., "HL-min-Fair-mAP": ...}, "HL-min-Fair": ..., "full": ...}``; see
        ``retrieval_scores`` and ``highlight_scores`` for the parts.

    >>> line = {"qid": 1, "pred_relevant_windows": [[0, 9, 0.8], [4, 10, 0.7]]}
    >>> scores = qvhighlights_scores([line], [{"qid": 1, "relevant_windows": [[4, 10]]}])
    >>> scores["brief"]["MR-full-mAP"], scores["brief"]["MR-full-R1@0.5"]
    (55.0, 100.0)

    Raises:
        ValueError: No queries, other queries than annotated, or a query twice; and what the parts raise.
    """
    truth = {row["qid"]: row for row in annotations}
    qids = {line["qid"] for line in submission}
    if not qids or qids != set(truth) or len(qids) != len(submission) or len(truth) != len(annotations):
        raise ValueError(
            f"submission and annotations must have the same qids, each once: got {len(submission)} lines with "
            f"{len(qids)} qids, {len(annotations)} annotations with {len(truth)}, {len(qids & set(truth))} shared"
        )
    rows = [truth[line["qid"]] for line in submission]
    brief: dict[str, float] = {}
    parts: dict[str, dict[str, Any]] = {}
    if "pred_relevant_windows" in submission[0]:
        windows = [line["pred_relevant_windows"] for line in submission]
        retrieval = retrieval_scores(windows, [row["relevant_windows"] for row in rows])
        full = retrieval["full"]
        figures = {f"MR-{name}-mAP": each["MR-mAP"]["average"] for name, each in retrieval.items()}
        figures |= {f"MR-full-mAP@{overlap}": full["MR-mAP"][overlap] for overlap in ("0.5", "0.75")}
        figures |= {f"MR-full-R1@{overlap}": full["MR-R1"][overlap] for overlap in ("0.5", "0.7")}
        brief.update(sorted(figures.items()))
        parts.update(retrieval)
    if "pred_saliency_scores" in submission[0]:
        annotated = [clip_scores(row["relevant_clip_ids"], row["saliency_scores"], row["duration"]) for row in rows]
        highlights = highlight_scores([line["pred_saliency_scores"] for line in submission], annotated)
        for name, each in highlights.items():
            brief.update({f"{name}-{key.removeprefix('HL-')}": value for key, value in each.items()})
        parts.update(highlights)
    return {"brief": brief, **dict(sorted(parts.items()))}
