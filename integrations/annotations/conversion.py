"""Conversion of records between the conventions of data sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from hero_plugin.integrations.moments import Rounding, moment_to_clips, saliency_from_moments
from hero_plugin.integrations.records import REWORDED, Record

__all__ = ["Period", "QueryIds", "SaliencyChoice", "Snap", "Windows", "convert_records", "snap_moment"]

QueryIds = Literal["keep", "number", "video"]
Period = Literal["keep", "strip", "add"]
Windows = Literal["keep", "first", "longest", "hull", "split"]
SaliencyChoice = Literal["keep", "none", "inside", "overlap", "lighthouse"]
Snap = Literal["none", "best_iou", "floor", "nearest", "outward"]


def convert_records(
    records: Iterable[Record],
    *,
    clip_length: float = 2.0,
    rounding: Snap = "none",
    windows: Windows = "keep",
    saliency: SaliencyChoice = "keep",
    saliency_score: float = 4.0,
    annotators: int = 3,
    query_ids: QueryIds = "keep",
    first_query_id: int = 0,
    period: Period = "keep",
    keep_extra: bool = True,
) -> list[Record]:
    """Convert records between the conventions of data sets. The defaults change nothing.

    Args:
        records: Queries.
        clip_length: Seconds per clip, for ``rounding`` and ``saliency``.
        rounding: "none" leaves moments as they are; "best_iou", "floor", "nearest" and "outward" move them to the
            clips' edges (see ``moment_to_clips``), as QVHighlights' windows are; the last edge is the video's end.
        windows: what becomes of several moments of one query: "keep" them, the "first", the "longest", their
            "hull" (first start to last end), or "split" into one query per moment (ids get "_0", "_1", ...).
        saliency: "keep" what is there, "none", or labels made from the moments by a rule of
            ``saliency_from_moments``: "inside", "overlap", "lighthouse". saliency_score, annotators: see there.
        query_ids: "keep", "number" them from ``first_query_id``, or "video": VIDEO_0, VIDEO_1, ...
        period: "keep", "strip" or "add" the full stop at the end of sentences (Charades-STA has it, Charades-CD not).
        keep_extra: Whether to keep what only the old format knew.
    """
    _check("windows", windows, ("keep", "first", "longest", "hull", "split"))
    _check("query_ids", query_ids, ("keep", "number", "video"))
    _check("period", period, ("keep", "strip", "add"))
    _check("saliency", saliency, ("keep", "none", "inside", "overlap", "lighthouse"))
    _check("rounding", rounding, ("none", "best_iou", "floor", "nearest", "outward"))
    if not (math.isfinite(clip_length) and clip_length > 0):
        raise ValueError(f"clip_length must be positive seconds, got {clip_length}")
    result: list[Record] = []
    counts: Counter[str] = Counter()
    for source in records:
        for record in _windows(source, windows):
            moments = record.moments
            if rounding != "none":
                moments = tuple(snap_moment(moment, record.duration, clip_length, rounding) for moment in moments)
            labels = record.saliency
            if saliency == "none":
                labels = ()
            elif saliency != "keep":
                labels = saliency_from_moments(
                    moments,
                    record.duration,
                    clip_length=clip_length,
                    rule=saliency,
                    rounding="nearest" if rounding == "none" else rounding,
                    score=saliency_score,
                    annotators=annotators,
                )
            query = record.query_id
            if query_ids == "number":
                query = str(first_query_id + len(result))
            elif query_ids == "video":
                query = f"{record.video_id}_{counts[record.video_id]}"
                counts[record.video_id] += 1
            extra = record.extra
            if not keep_extra:  # the link of a reworded query to its original is everybody's
                extra = {key: value for key, value in extra.items() if key == REWORDED}
            if query != record.query_id and "qid" in extra:
                extra = {key: value for key, value in extra.items() if key != "qid"}
            sentence = _with_period(record.sentence, period)
            result.append(
                record.replace(query_id=query, sentence=sentence, moments=moments, saliency=labels, extra=extra)
            )
    return result


def snap_moment(
    moment: tuple[float, float], duration: float, clip_length: float, rounding: Rounding
) -> tuple[float, float]:
    """Return the moment with both boundaries on clip edges (seconds); the last clip ends where the video ends."""
    clips = max(1, math.ceil(duration / clip_length - 1e-6))
    first, last = moment_to_clips(*moment, clips, clips * clip_length, rounding)
    return first * clip_length, min((last + 1) * clip_length, duration)


def _windows(record: Record, choice: Windows) -> Sequence[Record]:
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


def _with_period(sentence: str, choice: Period) -> str:
    if choice == "keep":
        return sentence
    bare = sentence.rstrip(". ")
    return (bare or sentence) + ("." if choice == "add" and not bare.endswith(("!", "?")) else "")


def _check(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
