"""Charades-STA text: one line per query, `VIDEO START END##sentence`, seconds. It holds no durations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from hero_plugin.integrations.annotations.checks import OnProgress, RecordChecks, numbered_lines
from hero_plugin.integrations.annotations.durations import HOW_TO_GIVE_DURATIONS
from hero_plugin.integrations.annotations.writing import single_moment
from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.problems import Problems
from hero_plugin.integrations.records import Record, clean_sentence

__all__ = ["read_charades_sta", "write_charades_sta"]

_SHAPE = "expected `VIDEO START END##sentence`"


def read_charades_sta(
    path: Path, checks: RecordChecks, durations: Mapping[str, float] | None, progress: OnProgress | None = None
) -> None:
    """Add the records of a file to ``checks``; the file itself holds no durations."""
    if durations is None:
        checks.failure("", "Charades-STA text holds no video durations", HOW_TO_GIVE_DURATIONS)
        durations = {}
        unknown_is_news = False
    else:
        unknown_is_news = True
    count: Counter[str] = Counter()
    unknown: set[str] = set()
    for number, line in numbered_lines(path, checks, progress):
        where = f":{number}"
        head, mark, raw = line.partition("##")
        fields = head.split()
        if not mark or len(fields) != 3:
            checks.problem(where, f"{_SHAPE}, got {line[:80]!r}", "correct or delete the line")
            continue
        video = fields[0]
        position = count[video]
        count[video] += 1
        checks.ids.append(f"{video}_{position}")
        sentence = checks.sentence(where, raw)
        duration = durations.get(video)
        if duration is None:
            if unknown_is_news and video not in unknown:
                checks.failure(where, f"no duration for video {video}", HOW_TO_GIVE_DURATIONS)
            unknown.add(video)
            duration = float("inf")  # the rest of the line is still checked
        moment = checks.moment(where, (fields[1], fields[2]), duration)
        if sentence is None or moment is None or video in unknown:
            continue
        extra = {} if sentence == raw else {"raw_sentence": raw}
        record = Record(f"{video}_{position}", video, sentence, (moment,), duration, checks.split, extra=extra)
        checks.keep(where, record)


def write_charades_sta(records: Sequence[Record], path: Path) -> None:
    """Write one line per record. The format has no place for ids, durations, splits, saliency and extras."""
    problems = Problems()
    moments = [single_moment(record, path, problems) for record in records]
    for record in records:
        if "##" in record.video_id or not record.video_id or record.video_id.split() != [record.video_id]:
            problems.add(f"{path}: video {record.video_id!r}", "this name cannot stand in such a line", "rename it")
    problems.raise_if_any()
    with atomic_write(path) as stream:
        for record, moment in zip(records, moments, strict=True):
            start, end = moment or (0.0, 0.0)
            stream.write(f"{record.video_id} {start!r} {end!r}##{_sentence(record)}\n")


def _sentence(record: Record) -> str:
    raw = record.extra.get("raw_sentence")
    if isinstance(raw, str) and clean_sentence(raw) == record.sentence and "\n" not in raw and "\r" not in raw:
        return raw
    return clean_sentence(record.sentence)
