"""What the writers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hero_plugin.integrations.problems import Problems
from hero_plugin.integrations.records import Record, clean_sentence

__all__ = ["raw_sentence", "single_moment", "tidy_number"]


def single_moment(record: Record, path: Path, problems: Problems) -> tuple[float, float] | None:
    """The one moment of a record; a problem where it has none or several."""
    if len(record.moments) == 1:
        start, end = record.moments[0]
        return float(start), float(end)
    problems.add(
        f"{path}: query {record.query_id} of video {record.video_id}",
        f"this format holds one moment a query, the record has {len(record.moments)}",
        'choose what becomes of several windows: --windows "first", "longest", "hull" or "split"'
        if record.moments
        else "queries without labels can only be written as QVHighlights JSONL",
    )
    return None


def raw_sentence(record: Record) -> str:
    """The sentence as its file had it, unless somebody has changed it since."""
    raw = record.extra.get("raw_sentence")
    return raw if isinstance(raw, str) and clean_sentence(raw) == record.sentence else record.sentence


def tidy_number(value: Any) -> Any:
    """72 for 72.0, as QVHighlights and ActivityNet Captions write whole seconds."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
