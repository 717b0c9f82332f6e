"""Charades-CD JSON: captions with `video_duration`, frame numbers and word numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hero_plugin.integrations.annotations.by_video import frames_of, group_by_video, listed_extras
from hero_plugin.integrations.annotations.writing import raw_sentence
from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.records import Record

__all__ = ["write_charades_cd"]

_FPS = 16.0  # decode_fps of every video of Charades-CD


def write_charades_cd(records: Sequence[Record], path: Path) -> None:
    """Write the published layout. `framestamps` are made from the moments; `encoded_sentences` only where known."""
    data = group_by_video(records, path, _charades_cd_entry)
    with atomic_write(path) as stream:
        json.dump(data, stream)


def _charades_cd_entry(group: list[Record], moments: list[tuple[float, float]]) -> dict[str, Any]:
    video = dict(group[0].extra.get("video", {}))
    fps = video.pop("decode_fps", _FPS)
    sentence_lists = listed_extras(group, skip=("framestamps",))
    frames = [r.extra.get("framestamps") or frames_of(moment, fps) for r, moment in zip(group, moments, strict=True)]
    encoded = (
        {"encoded_sentences": sentence_lists.pop("encoded_sentences")} if "encoded_sentences" in sentence_lists else {}
    )
    return {
        "framestamps": frames,
        "decode_fps": fps,
        **encoded,
        "sentences": [raw_sentence(record) for record in group],
        "video_fps": video.pop("video_fps", -1.0),
        "timestamps": [list(moment) for moment in moments],
        "video_duration": group[0].duration,
        **sentence_lists,
        **video,
    }
