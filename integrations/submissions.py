"""Submissions in QVHighlights' form: the predictions for each query, one JSON object per line.

`{"qid", "query", "vid", "pred_relevant_windows": [[start, end, score], ...], "pred_saliency_scores": [...]}`: windows
in seconds, the most likely first, and one saliency score for each clip of two seconds. Moment-DETR, its descendants
and lighthouse write such files, and QVHighlights' official evaluation reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hero_plugin.highlights import clip_scores
from hero_plugin.integrations.annotations.qvhighlights import qid
from hero_plugin.integrations.annotations.writing import raw_sentence
from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.records import Record
from hero_plugin.qvhighlights import qvhighlights_scores

__all__ = [
    "SALIENCY",
    "WINDOWS",
    "annotation_row",
    "has_official_labels",
    "official_scores",
    "submission_line",
    "write_submission",
]

WINDOWS, SALIENCY = "pred_relevant_windows", "pred_saliency_scores"
DECIMALS = 4  # as Moment-DETR and its descendants write them


def submission_line(
    record: Record, windows: ArrayLike, scores: ArrayLike, saliency: ArrayLike | None = None
) -> dict[str, Any]:
    """Return the line of one query, its windows sorted by score; equal scores keep their order.

    Numbers are rounded to four decimals.

    Args:
        record: The query.
        windows: (K, 2), start and end in seconds.
        scores: (K,).
        saliency: (T,), one score per clip; None for a model without.

    Raises:
        ValueError: Shapes do not fit, there is no window, or numbers are not finite.
    """
    found, weights = np.asarray(windows, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found):
        raise ValueError(f"windows must be (K, 2), start and end of at least one window, got {found.shape}")
    if weights.shape != found.shape[:1]:
        raise ValueError(f"scores must be (K,)=({len(found)},), one per window, got {weights.shape}")
    order = np.argsort(-weights, kind="stable")
    ranked = np.column_stack([found, weights])[order]
    line = {"qid": qid(record), "query": raw_sentence(record), "vid": record.video_id}
    line[WINDOWS] = _rounded("windows and scores", ranked)
    if saliency is not None:
        clips = np.asarray(saliency, dtype=np.float64)
        if clips.ndim != 1 or not len(clips):
            raise ValueError(f"saliency must be (T,), one score per clip, got {clips.shape}")
        line[SALIENCY] = _rounded("saliency", clips)
    return line


def annotation_row(record: Record) -> dict[str, Any]:
    """Return the part of an annotated query that ``qvhighlights_scores`` reads."""
    return {
        "qid": qid(record),
        "duration": record.duration,
        "relevant_windows": record.moments,
        "relevant_clip_ids": [clip for clip, _ in record.saliency],
        "saliency_scores": [scores for _, scores in record.saliency],
    }


def has_official_labels(record: Record) -> bool:
    """Return whether a query has what QVHighlights scores: moments, and three annotators' scores of clips of 2 s."""
    if not record.moments or not any(scores for _, scores in record.saliency):
        return False
    row = annotation_row(record)
    try:
        return len(clip_scores(row["relevant_clip_ids"], row["saliency_scores"], record.duration)) > 0
    except ValueError:
        return False


def official_scores(lines: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Score a model's own lines as QVHighlights does; moment retrieval alone where the records have no saliency.

    Args:
        lines: One per record, as from ``submission_line``, in any order.
        records: The annotated queries.
    """
    if not any(record.saliency for record in records):
        lines = [{key: value for key, value in line.items() if key != SALIENCY} for line in lines]
    return qvhighlights_scores(lines, [annotation_row(record) for record in records])


def write_submission(path: str | Path, lines: Iterable[Mapping[str, Any]]) -> int:
    """Write lines as they come; the file appears once it is complete. Return their number."""
    count = 0
    with atomic_write(path) as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _rounded(name: str, values: np.ndarray) -> list[Any]:
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(values))} that are not")
    return (values.round(DECIMALS) + 0.0).tolist()  # + 0.0: no minus sign before a zero
