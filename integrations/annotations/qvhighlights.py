"""QVHighlights-style JSONL, the input of Moment-DETR, its descendants and lighthouse: one JSON object per line.

`{"qid", "query", "duration", "vid", "relevant_windows": [[s, e], ...], "relevant_clip_ids": [...],
"saliency_scores": [[a, b, c], ...]}`. Test files end after `vid`; Charades-STA and more in this form have
windows and no saliency. Other keys, and keys that are null, are kept in `Record.extra`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hero_plugin.integrations.annotations.checks import OnProgress, RecordChecks, as_number, numbered_lines
from hero_plugin.integrations.annotations.writing import raw_sentence, tidy_number
from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.records import Record

__all__ = ["qid", "read_qvhighlights", "write_qvhighlights"]

_LINE_KEYS = ("qid", "query", "duration", "vid", "relevant_clip_ids", "saliency_scores", "relevant_windows")


def read_qvhighlights(
    path: Path, checks: RecordChecks, durations: Mapping[str, float] | None, progress: OnProgress | None = None
) -> None:
    """Add the records of a file to ``checks``; ``durations`` serves lines that have none."""
    for number, line in numbered_lines(path, checks, progress):
        where = f":{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            checks.problem(where, f"not JSON ({error.msg} at column {error.colno})", "correct or delete the line")
            continue
        missing = [key for key in ("query", "vid") if key not in row] if isinstance(row, dict) else ["query", "vid"]
        if missing:
            checks.problem(where, f"expected an object with {' and '.join(missing)}", "correct or delete the line")
            continue
        video, given = str(row["vid"]), row.get("qid", number - 1)
        checks.ids.append(given if isinstance(given, int | str) else str(given))
        raw_duration = row.get("duration", (durations or {}).get(video))
        if raw_duration is None:
            fix = "add it, or give durations=FILE (--durations)"
            checks.failure(where, f"no `duration` of video {video}", fix)
            continue
        sentence, duration = checks.sentence(where, row["query"]), checks.duration(where, raw_duration)
        if sentence is None or duration is None:
            continue
        moments = _windows(where, row.get("relevant_windows"), duration, checks)
        saliency = _saliency(where, row.get("relevant_clip_ids"), row.get("saliency_scores"), checks)
        if moments is None or saliency is None:
            continue
        extra = {key: value for key, value in row.items() if key not in _LINE_KEYS or value is None}
        if sentence != row["query"]:
            extra["raw_sentence"] = row["query"]
        query = str(given)
        if isinstance(given, str) and _number(query) is not None:
            extra["qid"] = query  # "12" and 12 are different ids to code that compares them later
        checks.keep(where, Record(query, video, sentence, moments, duration, checks.split, saliency, extra))


def _windows(where: str, raw: Any, duration: float, checks: RecordChecks) -> tuple[tuple[float, float], ...] | None:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        checks.problem(where, f"relevant_windows must be a list of [start, end], got {raw!r}")
        return None
    moments = [checks.moment(where, window, duration) for window in raw]
    kept = tuple(moment for moment in moments if moment is not None)
    return kept if len(kept) == len(moments) else None


def _saliency(
    where: str, clips: Any, scores: Any, checks: RecordChecks
) -> tuple[tuple[int, tuple[float, ...]], ...] | None:
    if clips is None:
        return ()
    if not isinstance(clips, list) or not all(isinstance(c, int) and not isinstance(c, bool) and c >= 0 for c in clips):
        checks.problem(where, "relevant_clip_ids must be a list of clip numbers, 0 or more")
        return None
    if scores is None:
        return tuple((clip, ()) for clip in clips)
    if not isinstance(scores, list) or len(scores) != len(clips):
        got = len(scores) if isinstance(scores, list) else repr(scores)
        checks.problem(where, f"{len(clips)} relevant_clip_ids need as many saliency_scores, got {got}")
        return None
    if not all(isinstance(s, list) and all(as_number(x) is not None for x in s) for s in scores):
        checks.problem(where, "saliency_scores must be lists of finite numbers, one list per clip")
        return None
    return tuple((clip, tuple(float(x) for x in each)) for clip, each in zip(clips, scores, strict=True))


def write_qvhighlights(records: Sequence[Record], path: Path) -> None:
    """Write one JSON object per line, keys in QVHighlights' order. Splits have no place here."""
    with atomic_write(path) as stream:
        for record in records:
            stream.write(json.dumps(_row(record)) + "\n")


def qid(record: Record) -> str | int:
    """Return a record's id as QVHighlights writes it: a number, unless the record's own file had it as text."""
    number = _number(record.query_id)
    return record.query_id if number is None or record.extra.get("qid") == record.query_id else number


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {
        "qid": qid(record),
        "query": raw_sentence(record),
        "duration": tidy_number(record.duration),
        "vid": record.video_id,
    }
    if record.saliency:
        row["relevant_clip_ids"] = [clip for clip, _ in record.saliency]
        if any(scores for _, scores in record.saliency):
            row["saliency_scores"] = [[tidy_number(x) for x in scores] for _, scores in record.saliency]
    if record.moments:
        row["relevant_windows"] = [[tidy_number(start), tidy_number(end)] for start, end in record.moments]
    more = {key: value for key, value in record.extra.items() if key not in ("qid", "raw_sentence", "video")}
    return {**row, **{key: value for key, value in more.items() if key not in row}}


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and str(int(text)) == text else None
