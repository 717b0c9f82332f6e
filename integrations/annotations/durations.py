"""Video lengths, for annotations that do not carry them (Charades-STA text)."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hero_plugin.integrations.annotations.checks import as_number
from hero_plugin.integrations.problems import DataError, Problem, Problems, not_utf8

__all__ = ["HOW_TO_GIVE_DURATIONS", "Durations", "load_durations"]

Durations = Mapping[str, Any] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

HOW_TO_GIVE_DURATIONS = (
    "give durations=FILE (--durations FILE): JSON such as Charades' action timelines or any Charades-CD file, "
    "the CSV of Charades (columns id, length), JSONL (vid, duration), or a mapping of video to seconds"
)
_KEYS = ("duration", "video_duration", "length")
_NAMES = ("vid", "video_id", "video", "id")


def load_durations(source: Durations) -> dict[str, float]:
    """Load the seconds of each video, by video id.

    Args:
        source: A mapping {video: seconds} or {video: {"duration": seconds}}, or one or several files: JSON that holds
            such a mapping (``duration`` or ``video_duration``), JSONL with ``vid`` and ``duration``, or CSV with a
            column ``id`` (or ``video``, ``vid``) and a column ``length`` (or ``duration``).

    Raises:
        FileNotFoundError: A file is missing.
        DataError: Entries are not positive numbers of seconds; it lists every one.
    """
    if isinstance(source, Mapping):
        return _checked("durations", source.items())
    if isinstance(source, str | os.PathLike):
        source = [source]
    found: dict[str, float] = {}
    for name in source:
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"no durations file at {path}")
        found.update(_checked(str(path), _entries(path)))
    return found


def _entries(path: Path) -> list[tuple[str, Any]]:
    table = path.suffix.lower() == ".csv"
    text = _text(path, newline="" if table else None)
    if table:
        rows: list[Mapping[str, Any]] = list(csv.DictReader(io.StringIO(text, newline="")))
    else:
        try:
            whole = json.loads(text)
        except json.JSONDecodeError as error:
            if path.suffix.lower() not in (".jsonl", ".ndjson"):
                where = f"{path}:{error.lineno}"
                raise DataError([Problem(where, f"not JSON ({error.msg})", HOW_TO_GIVE_DURATIONS)]) from error
            whole = _json_lines(path, text)
        if isinstance(whole, dict) and not any(key in whole for key in _KEYS):
            return list(whole.items())
        rows = [row for row in (whole if isinstance(whole, list) else [whole]) if isinstance(row, dict)]
    name = next((key for key in _NAMES if rows and key in rows[0]), None)
    if name is None or not any(key in rows[0] for key in _KEYS):
        has = f"it has {list(rows[0])}" if rows else "it is empty"
        raise DataError([Problem(str(path), f"no video names and durations found; {has}", HOW_TO_GIVE_DURATIONS)])
    return [(str(row[name]), row) for row in rows]


def _text(path: Path, newline: str | None) -> str:
    try:
        with open(path, newline=newline, encoding="utf-8-sig") as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        what = not_utf8(error)
        raise DataError([Problem(str(path), what, "save it as UTF-8")]) from error


def _json_lines(path: Path, text: str) -> list[Any]:
    rows, problems = [], Problems()
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                problems.add(f"{path}:{number}", f"not JSON ({error.msg})", "correct or delete the line")
    problems.raise_if_any()
    return rows


def _checked(where: str, entries: Any) -> dict[str, float]:
    found, problems = {}, Problems()
    for video, entry in entries:
        raw = next((entry[key] for key in _KEYS if key in entry), None) if isinstance(entry, Mapping) else entry
        seconds = as_number(raw)
        if seconds is None or seconds <= 0:
            what = f"the duration must be a positive number of seconds, got {raw!r}"
            problems.add(f"{where}: video {video}", what, "correct or remove the entry")
        else:
            found[str(video)] = seconds
    problems.raise_if_any()
    return found
