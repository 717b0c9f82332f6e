"""JSON that maps each video to its sentences and timestamps, as in ActivityNet Captions and its successors.

`{VIDEO: {"duration" or "video_duration": seconds, "sentences": [...], "timestamps": [[start, end], ...], ...}}`.
Any other list as long as `sentences` belongs to the sentences (`novels`, `encoded_sentences`), anything else
to the video (`decode_fps`); both are kept in `Record.extra`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hero_plugin.integrations.annotations.checks import OnProgress, RecordChecks, as_number
from hero_plugin.integrations.annotations.writing import single_moment
from hero_plugin.integrations.problems import DataError, Problem, Problems
from hero_plugin.integrations.records import Record

__all__ = ["frames_of", "group_by_video", "listed_extras", "load_by_video", "read_by_video"]

_ENTRY_KEYS = ("sentences", "timestamps", "duration", "video_duration")


def read_by_video(
    path: Path, checks: RecordChecks, durations: Mapping[str, float] | None, progress: OnProgress | None = None
) -> None:
    """Add the records of a file to ``checks``; ``durations`` serves videos whose entry has none."""
    data = load_by_video(path, checks)
    if data and not any(_is_entry(entry) for entry in data.values()):
        what = f"none of its {len(data)} entries has lists `sentences` and `timestamps`"
        checks.failure("", what, "is this an annotation file, and the right format?")
        return
    for video, entry in data.items():
        where = f": video {video}"
        if not _is_entry(entry):
            checks.problem(where, "expected lists `sentences` and `timestamps`", "correct or remove the entry")
            continue
        sentences, timestamps = entry["sentences"], entry["timestamps"]
        checks.ids += [f"{video}_{position}" for position in range(len(sentences))]
        if len(sentences) != len(timestamps):
            what = f"{len(sentences)} sentences but {len(timestamps)} timestamps"
            checks.problem(where, what, "correct or remove the entry")
            continue
        raw_duration = entry.get("duration", entry.get("video_duration", (durations or {}).get(video)))
        if raw_duration is None:
            checks.failure(where, "no `duration` or `video_duration`", "add it, or give durations=FILE (--durations)")
            continue
        duration = checks.duration(where, raw_duration)
        if duration is None:
            continue
        listed, whole = _extras(entry, len(sentences))
        for position, raw in enumerate(sentences):
            spot = f"{where}, sentence {position + 1}"
            sentence = checks.sentence(spot, raw)
            moment = checks.moment(spot, timestamps[position], duration)
            if sentence is None or moment is None:
                continue
            extra: dict[str, Any] = {key: values[position] for key, values in listed.items()}
            if "framestamps" in extra and extra["framestamps"] == frames_of(
                timestamps[position], whole.get("decode_fps")
            ):
                del extra["framestamps"]  # the writer makes them again, from the moment as it then is
            if sentence != raw:
                extra["raw_sentence"] = raw
            if whole:
                extra["video"] = whole
            query = f"{video}_{position}"
            checks.keep(spot, Record(query, video, sentence, (moment,), duration, checks.split, extra=extra))
    if progress is not None:
        progress(size := path.stat().st_size, size)


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), list) for key in ("sentences", "timestamps"))


def _extras(entry: dict[str, Any], count: int) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    more = {key: value for key, value in entry.items() if key not in _ENTRY_KEYS}
    listed = {key: value for key, value in more.items() if isinstance(value, list) and len(value) == count}
    return listed, {key: value for key, value in more.items() if key not in listed}


def load_by_video(path: Path, checks: RecordChecks) -> dict[str, Any]:
    """Load the JSON object; names that occur twice become problems of ``checks``."""
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        """json.loads would keep the last of two entries of one name, and say nothing."""
        found = dict(items)
        if len(found) != len(items):
            names = [name for name, _ in items]
            twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return found

    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        fix = "the file may be truncated: copy or download it again"
        raise DataError([Problem(f"{path}:{error.lineno}", f"not JSON ({error.msg})", fix)]) from error
    except UnicodeDecodeError as error:
        raise DataError([Problem(str(path), f"not UTF-8 text ({error.reason})", "save it as UTF-8")]) from error
    if not isinstance(data, dict):
        what = f"expected a JSON object of videos, got a {type(data).__name__}"
        raise DataError([Problem(str(path), what, "is this the right file and format?")])
    for name in twice:
        checks.failure(f": {name}", "occurs twice in one JSON object", "merge or rename the entries")
    return data


def frames_of(moment: Sequence[Any], fps: Any) -> list[int] | None:
    """Return the frames of a moment at ``fps``, rounded down, as Charades-CD numbers them."""
    rate = as_number(fps)
    seconds = [as_number(value) for value in moment]
    if rate is None or any(value is None for value in seconds):
        return None
    return [math.floor(value * rate) for value in seconds if value is not None]


def group_by_video(
    records: Sequence[Record],
    path: Path,
    make_entry: Callable[[list[Record], list[tuple[float, float]]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return ``{VIDEO: entry}`` in the order of the videos' first records, which must agree about durations."""
    problems = Problems()
    grouped: dict[str, list[Record]] = {}
    moments: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        moment = single_moment(record, path, problems)
        first = grouped.setdefault(record.video_id, [record])[0]
        if first is not record:
            grouped[record.video_id].append(record)
            if first.duration != record.duration:
                what = f"records give durations {first.duration:g} and {record.duration:g} s"
                problems.add(f"{path}: video {record.video_id}", what, "one video has one duration: correct them")
        moments.setdefault(record.video_id, []).append(moment or (0.0, 0.0))
    problems.raise_if_any()
    return {video: make_entry(group, moments[video]) for video, group in grouped.items()}


def listed_extras(group: Sequence[Record], skip: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return the extras that every sentence of a video has, as the lists that they came from."""
    reserved = {"video", "raw_sentence", *skip}
    keys = [key for key in group[0].extra if key not in reserved]
    return {key: [r.extra[key] for r in group] for key in keys if all(key in r.extra for r in group)}
