"""Charades' action timelines: which of 157 actions a human saw, and when."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hero_plugin.integrations.annotations.checks import as_number
from hero_plugin.integrations.problems import DataError, Problem, Problems
from hero_plugin.metrics import temporal_iou

__all__ = ["CLASSES", "Timeline", "load_timelines"]

CLASSES = 157


@dataclass(frozen=True)
class Timeline:
    """The annotated actions of one video: action `classes[i]` lasts from `starts[i]` to `ends[i]` (seconds)."""

    video_id: str
    duration: float
    classes: np.ndarray  # (A,) int64
    starts: np.ndarray  # (A,) float64
    ends: np.ndarray  # (A,) float64

    def overlaps(self, start: float, end: float) -> np.ndarray:
        """IoU (A,) of each action with a moment."""
        return temporal_iou(np.stack([self.starts, self.ends], axis=-1), np.array([start, end]))


def load_timelines(path: str | os.PathLike[str]) -> dict[str, Timeline]:
    """Read `{VIDEO: {"duration": seconds, "actions": [[class, start, end], ...]}}`.

    Actions that end after the video are cut at its end (30 in 100 do, by up to 1.5 s); those that have no length
    then are left out (12 of 66,500 in Charades). Raises FileNotFoundError, or DataError with every bad entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no action timelines at {path}")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        fix = "the file may be truncated: copy or download it again"
        raise DataError([Problem(str(path), f"not JSON ({error})", fix)]) from error
    if not isinstance(data, dict) or not data:
        what = "expected {VIDEO: {duration, actions}}"
        raise DataError([Problem(str(path), what, "is this Charades' action timelines file?")])
    problems, timelines = Problems(), {}
    for video, entry in data.items():
        timeline = _timeline(str(video), entry, f"{path}: video {video}", problems)
        if timeline is not None:
            timelines[timeline.video_id] = timeline
    problems.raise_if_any()
    return timelines


def _timeline(video: str, entry: Any, where: str, problems: Problems) -> Timeline | None:
    fix = "correct or remove the entry"
    if not isinstance(entry, dict) or not isinstance(entry.get("actions"), list):
        problems.add(where, "expected {duration, actions: [[class, start, end], ...]}", fix)
        return None
    duration = as_number(entry.get("duration"))
    if duration is None or duration <= 0:
        problems.add(where, f"duration must be a positive number of seconds, got {entry.get('duration')!r}", fix)
        return None
    rows = []
    for action in entry["actions"]:
        numbers = [as_number(x) for x in action] if isinstance(action, list) else []
        row = [number for number in numbers if number is not None]
        if len(numbers) != 3 or len(row) != 3:
            problems.add(where, f"an action must be [class, start, end], got {action!r}", fix)
        elif not (0 <= row[0] < CLASSES and row[0] == int(row[0])):
            problems.add(where, f"the action's class must be 0 to {CLASSES - 1}, got {action[0]!r}", fix)
        else:
            rows.append(row)
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    starts, ends = np.clip(table[:, 1], 0, duration), np.clip(table[:, 2], 0, duration)
    seen = ends > starts
    return Timeline(video, duration, table[seen, 0].astype(np.int64), starts[seen], ends[seen])
