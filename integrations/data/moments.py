"""Labels of clips: moments in seconds to clip indices and back, saliency from moments, conversion of records.

A video of ``duration`` seconds has ``clips`` clips of equal length; clip i covers
[i, i + 1] * duration / clips seconds. Clip indices are inclusive on both sides, as in EMB.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import numpy as np

from hero_plugin.integrations.data.records import REWORDED, Record
from hero_plugin.integrations.support.errors import DataError, Problem

Rounding = Literal["best_iou", "floor", "nearest", "outward"]
SaliencyRule = Literal["inside", "overlap", "lighthouse"]

ON_EDGE = 1e-6  # of a clip: a boundary this near to a clip's edge lies on it, whatever the last bit says


def moment_to_clips(
    start: float, end: float, clips: int, duration: float, rounding: Rounding = "best_iou"
) -> tuple[int, int]:
    """Return the first and last clip (inclusive) of a moment, in seconds, of a video of ``duration`` seconds.

    ``rounding`` "best_iou" takes the clip range whose interval overlaps the moment best; EMB (and VSLNet) train on it.
    "floor" rounds both boundaries down to a clip's edge, ``int(t / clip_length)``, as Moment-DETR and its successors.
    "nearest" rounds both to the nearest edge. "outward" takes every clip that the moment touches. A moment that the
    last three would make empty gets the one clip that holds its middle.
    """
    first, last = moments_to_clips([start], [end], clips, duration, rounding)
    return int(first[0]), int(last[0])


def moments_to_clips(
    starts: Sequence[float] | np.ndarray,
    ends: Sequence[float] | np.ndarray,
    clips: int | Sequence[int] | np.ndarray,
    durations: float | Sequence[float] | np.ndarray,
    rounding: Rounding = "best_iou",
) -> tuple[np.ndarray, np.ndarray]:
    """Convert many moments as ``moment_to_clips`` does: arrays (N,) in, two int64 arrays (N,) out.

    ``clips`` and ``durations`` are one number for all or one per moment. The work per moment is constant, where
    upstream compares all clips**2 ranges.
    """
    start, end, clip_count, duration = np.broadcast_arrays(
        np.asarray(starts, np.float64),
        np.asarray(ends, np.float64),
        np.asarray(clips, np.int64),
        np.asarray(durations, np.float64),
    )
    if start.ndim != 1:
        raise ValueError(f"starts and ends must be (N,), got shape {start.shape}")
    if start.size and not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise ValueError("moments must be finite numbers of seconds; got NaN or infinity")
    if start.size and clip_count.min() < 1:
        raise ValueError(f"a video needs at least one clip, got {clip_count.min()}")
    if start.size and not (np.isfinite(duration).all() and duration.min() > 0):
        raise ValueError(f"durations must be positive seconds, got {duration.min()}")
    if rounding == "best_iou":
        return _best_iou(start, end, clip_count, duration)
    position_start, position_end = start * clip_count / duration, end * clip_count / duration
    if rounding == "floor":
        left, right = np.floor(position_start + ON_EDGE), np.floor(position_end + ON_EDGE)
    elif rounding == "nearest":
        left, right = np.floor(position_start + 0.5), np.floor(position_end + 0.5)
    elif rounding == "outward":
        left, right = np.floor(position_start + ON_EDGE), np.ceil(position_end - ON_EDGE)
    else:
        raise ValueError(f'rounding must be "best_iou", "floor", "nearest" or "outward", got {rounding!r}')
    middle = np.clip(np.floor((position_start + position_end) / 2), 0, clip_count - 1)
    first, last = np.clip(left, 0, clip_count - 1), np.clip(right - 1, 0, clip_count - 1)
    empty = (right <= left) | (right <= 0) | (left >= clip_count)
    return np.where(empty, middle, first).astype(np.int64), np.where(empty, middle, last).astype(np.int64)


def clips_to_moment(first: int, last: int, clips: int, duration: float) -> tuple[float, float]:
    """Return the seconds (start, end) that the clips first..last (inclusive) cover.

    The inverse of ``moment_to_clips`` under every rounding, and EMB's ``index_to_time`` (which rounds to float32 on
    the way).
    """
    if not 0 <= first <= last < clips:
        raise ValueError(f"need 0 <= first <= last < clips, got first={first}, last={last}, clips={clips}")
    return first * duration / clips, (last + 1) * duration / clips


def saliency_from_moments(
    moments: Sequence[tuple[float, float]],
    duration: float,
    *,
    clip_length: float = 2.0,
    rule: SaliencyRule = "inside",
    rounding: Rounding = "nearest",
    score: float = 4.0,
    annotators: int = 3,
) -> tuple[tuple[int, tuple[float, ...]], ...]:
    """Make QVHighlights-style saliency labels for data that has only moments.

    Args:
        moments: (start, end) in seconds.
        duration: Seconds of the video.
        clip_length: Seconds per clip (the last one may be shorter).
        rule: "inside" gives ``score`` to every clip of every moment (found with ``rounding``). "overlap" gives every
            clip ``score`` times the fraction of it that moments cover, where that is not 0. "lighthouse" gives 1 to
            the clips ``int(start/clip_length) .. int(end/clip_length) - 1`` of the first moment and nothing else:
            the label that lighthouse and QD-DETR make while training on Charades-STA, TACoS and ActivityNet; it
            ignores ``rounding`` and ``score``. A moment inside one clip labels the clip *before* its end there; that
            is kept.
        rounding: As in ``moment_to_clips``.
        score: 4 is QVHighlights' "Very Good", so that its highlight metrics count the clip as positive.
        annotators: How often the score is repeated; QVHighlights has three annotators per clip.

    Returns:
        ((clip index, scores), ...), sorted by clip index.
    """
    _check_clip_length(clip_length)
    if annotators < 1:
        raise ValueError(f"annotators must be 1 or more, got {annotators}")
    clips = max(1, math.ceil(duration / clip_length - ON_EDGE))
    span = clips * clip_length  # the grid's own length: its last clip may reach beyond the video
    scores: dict[int, float] = {}
    if rule == "inside":
        for start, end in moments:
            first, last = moment_to_clips(start, end, clips, span, rounding)
            scores.update(dict.fromkeys(range(first, last + 1), score))
    elif rule == "overlap":
        edges = np.arange(clips + 1) * clip_length
        lengths = np.minimum(edges[1:], max(duration, edges[-2] + 1e-9)) - edges[:-1]
        covered = np.zeros(clips)
        for start, end in _union(moments):
            covered += np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
        fractions = np.minimum(covered / lengths, 1.0)
        scores = {int(i): round(float(score * fractions[i]), 6) for i in np.nonzero(fractions > ON_EDGE)[0]}
    elif rule == "lighthouse":
        for start, end in moments[:1]:
            first, last = lighthouse_clips(start, end, clips, clip_length)
            scores = dict.fromkeys(range(first, last + 1), 1.0)
    else:
        raise ValueError(f'rule must be "inside", "overlap" or "lighthouse", got {rule!r}')
    return tuple((clip, (scores[clip],) * annotators) for clip in sorted(scores))


def lighthouse_clips(start: float, end: float, clips: int, clip_length: float, edge: float = 0.0) -> tuple[int, int]:
    """Return the first and last clip (inclusive) that lighthouse labels for a moment.

    A moment inside one clip gets the clip *before* its end, as in lighthouse.

    Boundaries less than ``edge`` before a clip's edge, in clips, count as on it; lighthouse itself has 0.
    """
    last = max(0, min(int(end / clip_length + edge), clips) - 1)
    return min(int(start / clip_length + edge), last), last


def _union(moments: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge overlapping moments, so that no second is counted twice."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(moments):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _edge_time(edge: np.ndarray, clips: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Return the seconds of clip edges, rounded to float32 exactly where EMB rounds, so that ties fall the same way."""
    return (edge.astype(np.float32) / clips.astype(np.float32) * duration.astype(np.float32)).astype(np.float64)


def _best_iou(
    start: np.ndarray, end: np.ndarray, clips: np.ndarray, duration: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute EMB's time_to_index: the range of greatest overlap, the first of equals in (start, end) order.

    For a fixed end, moving the start away from the moment's start only loses overlap, on either side; so the best
    edges are neighbours of the moment's, and four of each decide: float32 edges may sit one clip off the guess.
    Overlap is intersection over the hull, as upstream; where none overlaps, it is clip 0.
    """
    near = np.arange(-1, 3)[:, None]
    firsts, lasts = (
        np.clip(np.floor(time * clips / duration) - edge + near, 0, clips - 1).astype(np.int64)
        for time, edge in ((start, 0), (end, 1))
    )
    first, last = np.repeat(firsts, 4, axis=0), np.tile(lasts, (4, 1))  # (16, N), in upstream's order of comparison
    left, right = _edge_time(first, clips, duration), _edge_time(last + 1, clips, duration)
    inside = np.maximum(0.0, np.minimum(right, end) - np.maximum(left, start))
    overlap = inside / np.maximum(1e-12, np.maximum(right, end) - np.minimum(left, start))
    best = overlap.argmax(axis=0), np.arange(start.size)
    found = overlap[best] > 0
    return np.where(found, first[best], 0), np.where(found, last[best], 0)


@dataclass(frozen=True)
class Conversion:
    """Choices between the conventions of data sets. The defaults change nothing."""

    clip_length: float = 2.0
    """Seconds per clip, for --rounding and --saliency."""
    rounding: Literal["none", "best_iou", "floor", "nearest", "outward"] = "none"
    """Move moments to clip edges: not at all, to the best overlap (EMB), both boundaries down (Moment-DETR), to the
    nearest edge, or outward."""
    windows: Literal["keep", "first", "longest", "hull", "split"] = "keep"
    """Several moments of a query: keep them (QVHighlights only), the first, the longest, their hull, or one query
    each. Windows left out take the highlight labels of their clips along."""
    saliency: Literal["keep", "none", "inside", "overlap", "lighthouse"] = "keep"
    """Highlight labels: keep what is there, none, or made from moments: every clip inside, in proportion to the
    overlap, or as lighthouse and QD-DETR make them for Charades-STA."""
    saliency_score: float = 4.0
    """Score of a clip inside a moment (QVHighlights: 0 to 4)."""
    annotators: int = 3
    """How often the score is repeated per clip (QVHighlights: 3)."""
    query_ids: Literal["keep", "number", "video"] = "keep"
    """Keep ids, number them, or VIDEO_0, VIDEO_1, ...; unless they are kept, they may occur twice."""
    first_query_id: int = 0
    """Where --query-ids number begins; give every split its own range."""
    period: Literal["keep", "strip", "add"] = "keep"
    """The full stop at the end of sentences: keep, strip or add it."""

    def check(self) -> None:
        """Raise ``ValueError`` for a choice that does not exist."""
        for name, kind in get_type_hints(type(self)).items():
            if (choices := get_args(kind)) and getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        _check_clip_length(self.clip_length)
        if self.annotators < 1:
            raise ValueError(f"annotators must be 1 or more, got {self.annotators}")


def convert_records(records: Iterable[Record], choices: Conversion, *, keep_extra: bool = True) -> list[Record]:
    """Convert records between the conventions of data sets; ``keep_extra`` keeps what only the old format knew.

    Raises:
        ValueError: A choice does not exist.
        DataError: A query's id and that of a part of another are the same.
    """
    choices.check()
    result: list[Record] = []
    counts: Counter[str] = Counter()
    for source in records:
        for record in _windows(source, choices.windows):
            moments = record.moments
            if choices.rounding != "none":
                edges = choices.clip_length, choices.rounding
                snapped = (snap_moment(moment, record.duration, *edges) for moment in moments)
                moments = tuple(dict.fromkeys(snapped))  # two inside one clip become one
            labels = record.saliency
            if len(record.moments) < len(source.moments) and choices.windows != "hull":
                labels = tuple(each for each in labels if _touches(each[0], choices.clip_length, record.moments))
            if choices.saliency == "none":
                labels = ()
            elif choices.saliency != "keep":
                labels = saliency_from_moments(
                    moments,
                    record.duration,
                    clip_length=choices.clip_length,
                    rule=choices.saliency,
                    rounding="nearest" if choices.rounding == "none" else choices.rounding,
                    score=choices.saliency_score,
                    annotators=choices.annotators,
                )
            query = record.query_id
            if choices.query_ids == "number":
                query = str(choices.first_query_id + len(result))
            elif choices.query_ids == "video":
                query = f"{record.video_id}_{counts[record.video_id]}"
                counts[record.video_id] += 1
            extra = dict(record.extra)
            if not keep_extra:  # the link of a reworded query to its original is everybody's
                extra = {key: value for key, value in extra.items() if key == REWORDED}
            if query != record.query_id:
                extra.pop("qid", None)
            if moments != record.moments:
                extra.pop("framestamps", None)  # those of the moment as it was
            changed = record.replace(query_id=query, moments=moments, saliency=labels, extra=extra)
            result.append(changed.replace(sentence=_with_period(record.sentence, choices.period)))
    if choices.windows == "split" and choices.query_ids == "keep":
        ids = Counter(record.query_id for record in result)
        what, fix = "is that of two queries once windows are split", "number them anew: --query-ids number"
        if problems := [Problem(f"query id {each!r}", what, fix) for each, count in ids.items() if count > 1]:
            raise DataError(problems)
    return result


def snap_moment(
    moment: tuple[float, float], duration: float, clip_length: float, rounding: Rounding
) -> tuple[float, float]:
    """Return the moment with both boundaries on clip edges (seconds); the last clip ends where the video ends."""
    clips = max(1, math.ceil(duration / clip_length - ON_EDGE))
    first, last = moment_to_clips(*moment, clips, clips * clip_length, rounding)
    return first * clip_length, min((last + 1) * clip_length, duration)


def _windows(record: Record, choice: str) -> Sequence[Record]:
    moments = record.moments
    if choice == "keep" or len(moments) <= 1:
        return [record]
    if choice == "split":
        return [record.replace(query_id=f"{record.query_id}_{i}", moments=(m,)) for i, m in enumerate(moments)]
    if choice == "first":
        kept = min(moments)
    elif choice == "longest":
        kept = max(moments, key=lambda moment: moment[1] - moment[0])
    else:
        kept = (min(start for start, _ in moments), max(end for _, end in moments))
    return [record.replace(moments=(kept,))]


def _touches(clip: int, clip_length: float, moments: Sequence[tuple[float, float]]) -> bool:
    """Return whether a clip and one of the moments overlap."""
    return any(clip * clip_length < end and (clip + 1) * clip_length > start for start, end in moments)


def _with_period(sentence: str, choice: str) -> str:
    if choice == "keep":
        return sentence
    bare = sentence.rstrip(". ")
    return (bare or sentence) + ("." if choice == "add" and not bare.endswith(("!", "?")) else "")


def _check_clip_length(seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"clip_length must be positive seconds, got {seconds}")


STEADY = 0.03
"""Share by which a typical clip may be longer or shorter than is said."""
FEWEST = 10
"""Videos from which on a typical one tells; of fewer, each may lack its end."""


def clip_length_problem(
    videos: Mapping[str, tuple[float, int]], clip_length: float, max_clips: int | None = None
) -> Problem | None:
    """Return what is wrong where clips of this length are not those of the features; None where they agree.

    A count that is off by two clips, or by a tenth, is what extractors differ in at a video's end. More would train on
    one time and answer in another. So would less, where a typical video is off: its later clips are others.

    ``videos`` are (seconds, number of clips) by video. One of ``max_clips`` may have been cut, and then may be longer.
    """
    wrong: dict[str, float] = {}
    rates, beyonds = list[float](), list[float]()
    for video, (duration, clips) in videos.items():
        beyond = clips * clip_length - duration
        if max_clips is not None and clips >= max_clips and beyond < 0:
            continue  # cut
        rates.append(duration / max(clips, 1))
        beyonds.append(beyond)
        if abs(beyond) > max(2 * clip_length, 0.1 * duration):
            wrong[video] = duration / clips
    if wrong:
        first = next(iter(wrong))
        duration, clips = videos[first]
        rate = float(np.median(list(wrong.values())))
        what = (
            f"{len(wrong)} of {len(videos)} videos contradict --clip-length {clip_length:g}, the first: video {first} "
            f"lasts {duration:g} s and has {clips} clips, {duration / clips:.3g} s each"
        )
    elif len(rates) >= FEWEST and _off(rate := float(np.median(rates)), float(np.median(beyonds)), clip_length):
        what = (
            f"--clip-length {clip_length:g} is not that of the features: by the median of {len(rates)} videos, clips "
            f"last {rate:.4g} s, so that the last one is {abs(np.median(beyonds)):.3g} s from where it is taken to be"
        )
    else:
        return None
    fix = f"--clip-length {rate:.3g} if all clips last that long, 0 if a video's clips share its duration"
    fix += "; of a trained run, give features like those that it was trained on"
    return Problem("features", what, fix)


def _off(rate: float, beyond: float, clip_length: float) -> bool:
    """Return whether clips of ``rate`` seconds are others than is said, by more than two over a video's length."""
    return abs(rate - clip_length) > STEADY * clip_length and abs(beyond) > 2 * clip_length
