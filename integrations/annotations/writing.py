"""Helpers that the writers of all formats share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hero_plugin.integrations.problems import Problems
from hero_plugin.integrations.records import Record, clean_sentence

__all__ = ["raw_sentence", "single_moment", "tidy_number"]


def single_moment(record: Record, path: Path, problems: Problems) -> tuple[float, float] | None:
    """Return the one moment of a record; note a problem where it has none or several."""
    if len(record.moments) == 1:
        start, end = record.moments[0]
        return float(start), float(end)
    problems.add(
        f"{path}: query {record.query_id} of video {record.video_id}",
        f"this format holds one moment per query, the record has {len(record.moments)}",
        'choose what becomes of several windows: --windows "first", "longest", "hull" or "split"'
        if record.moments
        else "queries without labels can only be written as QVHighlights JSONL",
    )
    return None


def raw_sentence(record: Record) -> str:
    """Return the sentence as its file had it, unless it has been changed since."""
    raw = record.extra.get("raw_sentence")
    return raw if isinstance(raw, str) and clean_sentence(raw) == record.sentence else record.sentence


def tidy_number(value: Any) -> Any:
    """Return 72 for 72.0, as QVHighlights and ActivityNet Captions write whole seconds."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
