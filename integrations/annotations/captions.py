"""ActivityNet Captions JSON, also the form of ActivityNet-CD and Charades-CG (whose `novels` stay in `extra`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hero_plugin.integrations.annotations.by_video import group_by_video, listed_extras
from hero_plugin.integrations.annotations.writing import raw_sentence, tidy_number
from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.records import Record

__all__ = ["write_captions"]


def write_captions(records: Sequence[Record], path: Path) -> None:
    """Write `{VIDEO: {duration, timestamps, sentences, ...}}`. Query ids, splits and saliency have no place here."""
    data = group_by_video(records, path, _captions_entry)
    with atomic_write(path) as stream:
        json.dump(data, stream)


def _captions_entry(group: list[Record], moments: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "duration": group[0].duration,
        "timestamps": [[tidy_number(start), tidy_number(end)] for start, end in moments],
        "sentences": [raw_sentence(record) for record in group],
        **listed_extras(group),
        **group[0].extra.get("video", {}),
    }
