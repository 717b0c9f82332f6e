"""Checks of every record that is read, the handling of broken ones, and video lengths from other files."""

import csv
import io
import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hero_plugin.integrations.data.records import Record, clean_sentence
from hero_plugin.integrations.support.errors import DataError, Problem, Problems, not_utf8
from hero_plugin.integrations.support.files import OnProgress, iter_lines

OnOutside = Literal["clamp", "keep", "error"]
OnBroken = Literal["error", "drop"]

_DROP = 'correct it, or leave such queries out with on_broken="drop" (--on-broken drop)'


@dataclass
class ReadReport:
    """What a reader changed or left out, for callers that report it."""

    format: str = ""
    clamped: int = 0
    """Moments of queries that are kept that ended after their video and were cut at its end."""
    dropped: list[Problem] = field(default_factory=list)
    """Queries left out because of ``on_broken="drop"``, and why."""
    lost_windows: list[Problem] = field(default_factory=list)
    """Windows left out of queries that keep others, because of ``on_broken="drop"``, and why."""
    ids: list[str | int] = field(default_factory=list)
    """Of all queries in the file, those left out included, as far as they can be read; numbers where it has numbers."""


@dataclass
class RecordChecks:
    """The records of one file and everything that is wrong with it.

    A reader calls ``sentence``, ``moment`` and ``duration`` (None: the record is lost and the problem noted), then
    ``keep``. ``finish`` returns the records, or raises ``DataError`` with all problems.
    """

    path: Path
    on_outside: OnOutside = "clamp"
    on_broken: OnBroken = "error"
    split: str = ""
    records: list[Record] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)
    fatal: list[Problem] = field(default_factory=list)
    lost_windows: list[Problem] = field(default_factory=list)
    clamped: int = 0
    unique_ids: bool = True
    durations: Mapping[str, float] | None = None
    """Seconds by video, for files that do not hold them."""
    ids: list[str | int] = field(default_factory=list)
    """A reader adds the id of each query here, whatever is wrong with the query."""
    _cut: Counter[str] = field(default_factory=Counter)
    """Moments that ended after their video, by where the query is; they count once it is kept."""
    _ids: set[str] = field(default_factory=set)
    _lengths: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.on_outside not in ("clamp", "keep", "error"):
            raise ValueError(f'on_outside must be "clamp", "keep" or "error", got {self.on_outside!r}')
        if self.on_broken not in ("error", "drop"):
            raise ValueError(f'on_broken must be "error" or "drop", got {self.on_broken!r}')

    def problem(self, where: str, what: str, fix: str = _DROP) -> None:
        """Note what makes one query unusable."""
        self.broken.append(Problem(f"{self.path}{where}", what, fix))

    def failure(self, where: str, what: str, fix: str) -> None:
        """Note what makes the whole reading useless, so that nobody drops it by accident."""
        self.fatal.append(Problem(f"{self.path}{where}", what, fix))

    def sentence(self, where: str, raw: Any) -> str | None:
        """Return the query with tidy white space."""
        if not isinstance(raw, str):
            self.problem(where, f"the query must be text, got {raw!r}")
            return None
        sentence = clean_sentence(raw)
        if not sentence:
            self.problem(where, "empty query")
            return None
        return sentence

    def known_duration(self, video: str) -> float | None:
        """Return a video's length in seconds, where the file does not hold it."""
        return (self.durations or {}).get(video)

    def duration(self, where: str, raw: Any) -> float | None:
        """Return a video's length in seconds."""
        value = as_number(raw)
        if value is None or value <= 0:
            self.problem(where, f"the video's duration must be a positive number of seconds, got {raw!r}")
            return None
        return value

    def moment(self, where: str, raw: Any, duration: float) -> tuple[float, float] | None:
        """Return (start, end) in seconds, inside the video as ``on_outside`` wants it."""
        pair = list(raw) if isinstance(raw, list | tuple) else []
        start, end = (as_number(pair[0]), as_number(pair[1])) if len(pair) == 2 else (None, None)
        if start is None or end is None:
            self.problem(where, f"a moment must be two finite numbers of seconds, got {raw!r}")
            return None
        if start < 0:
            self.problem(where, f"the moment starts before its video: {start:g} s")
            return None
        if end <= start:
            self.problem(where, f"the moment's end must be after its start, got {start:g} to {end:g} s")
            return None
        if end > duration and self.on_outside == "error":
            what = f"the moment {start:g} to {end:g} s ends after its video of {duration:g} s"
            self.problem(where, what, 'correct it, or use on_outside="clamp" (--on-outside clamp)')
            return None
        if end > duration and self.on_outside == "clamp":
            if start >= duration:
                self.problem(where, f"the moment {start:g} to {end:g} s lies outside its video of {duration:g} s")
                return None
            end = duration
            self._cut[where] += 1
        return start, end

    def moments(self, where: str, raw: Any, duration: float) -> tuple[tuple[float, float], ...] | None:
        """Return the moments of a query that has several; None where the query cannot be used.

        With ``on_broken="drop"`` one that cannot be used is left out of a query that keeps others, and noted.
        """
        if not isinstance(raw, list):
            self.problem(where, f"relevant_windows must be a list of [start, end], got {raw!r}")
            return None
        before = len(self.broken)
        moments = [self.moment(where, window, duration) for window in raw]
        kept = tuple(moment for moment in moments if moment is not None)
        if len(kept) == len(moments):
            return kept
        if self.on_broken == "error" or not kept:
            return None
        self.lost_windows += self.broken[before:]
        del self.broken[before:]
        return kept

    def keep(self, where: str, record: Record) -> None:
        """Add a record whose parts all passed."""
        if self.unique_ids and record.query_id in self._ids:
            fix = "give every query its own id, or number them anew (hero-plugin data convert --query-ids number)"
            self.problem(where, f"the query id {record.query_id!r} occurs twice", fix)
            return
        known = self._lengths.setdefault(record.video_id, record.duration)
        if lengths_differ(known, record.duration):
            what = f"video {record.video_id} lasts {record.duration:g} s here, {known:g} s in a query before"
            self.problem(where, what, "give each video one duration")
            return
        self._ids.add(record.query_id)
        self.clamped += self._cut[where]
        self.records.append(record)

    def finish(self, report: ReadReport | None = None) -> list[Record]:
        """Return the records; raise ``DataError`` with all problems unless they may be dropped and records are left."""
        if self.fatal or (self.broken and (self.on_broken == "error" or not self.records)):
            raise DataError(self.fatal + self.broken)
        if not self.records:
            raise DataError([Problem(str(self.path), "no queries in this file", "is this the right file?")])
        if report is not None:
            report.clamped += self.clamped
            report.dropped += self.broken
            report.lost_windows += self.lost_windows
            report.ids += self.ids
        for problems, what in ((self.broken, "broken queries"), (self.lost_windows, "windows of other queries")):
            if problems and report is None:
                text = f"{self.path}: left out {len(problems)} {what}; the first: {problems[0]}"
                warnings.warn(text, stacklevel=3)
        return self.records


def as_number(raw: Any) -> float | None:
    """Convert a JSON number or text to a finite float; None for everything else, booleans included."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    if isinstance(raw, str) and "_" in raw:  # Python reads 1_0 as 10
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


Tell = Callable[[str, str, str], None]
"""Called with where in a file something is wrong (":7"), what, and a fix."""


def numbered_lines(path: Path, tell: Tell, progress: OnProgress | None = None) -> Iterator[tuple[int, str]]:
    """Yield the non-blank lines of a UTF-8 file with their numbers; ``tell`` what is wrong with others."""
    for number, raw in iter_lines(path, progress):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
        except UnicodeDecodeError as error:
            tell(f":{number}", not_utf8(error), "save it as UTF-8")
            continue
        if line.strip():
            yield number, line


def json_lines(path: Path, tell: Tell, progress: OnProgress | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the values of a file of one per line, with the lines' numbers; ``tell`` what is wrong with others."""
    for number, line in numbered_lines(path, tell, progress):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            tell(f":{number}", f"not JSON ({error.msg} at column {error.colno})", "correct or delete the line")
            continue
        yield number, value


Durations = Mapping[str, Any] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

HOW_TO_GIVE_DURATIONS = (
    "give --durations FILE (in Python durations=FILE): JSON such as Charades' action timelines or any Charades-CD "
    "file, the CSV of Charades (columns id, length), JSONL (vid, duration), or a mapping of video to seconds"
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
    entries: list[tuple[str, str, Any]] = []
    if isinstance(source, Mapping):
        entries = [("durations", video, entry) for video, entry in source.items()]
    else:
        for name in [source] if isinstance(source, str | os.PathLike) else source:
            path = Path(name)
            if not path.is_file():
                raise FileNotFoundError(f"no durations file at {path}")
            entries += [(str(path), video, entry) for video, entry in _entries(path)]
    found: dict[str, tuple[float, str]] = {}
    problems = Problems()
    for where, video, entry in entries:
        raw = next((entry[key] for key in _KEYS if key in entry), None) if isinstance(entry, Mapping) else entry
        seconds = as_number(raw)
        if seconds is None or seconds <= 0:
            what = f"the duration must be a positive number of seconds, got {raw!r}"
            problems.add(f"{where}: video {video}", what, "correct or remove the entry")
            continue
        known, before = found.setdefault(str(video), (seconds, where))
        if lengths_differ(known, seconds):
            apart = f"{seconds:g} s here, {known:g} s in a file before"
            what = f"{known:g} s and {seconds:g} s" if before == where else apart
            problems.add(f"{where}: video {video}", what, "give each video one duration")
        else:
            found[str(video)] = seconds, where
    problems.raise_if_any()
    return {video: seconds for video, (seconds, _) in found.items()}


def lengths_differ(one: float, other: float) -> bool:
    """Return whether two durations are not of one video: files round them, and cut a last clip."""
    return abs(one - other) > max(1.0, 0.05 * max(one, other))


def differing_lengths(records: Iterable[Record]) -> list[str]:
    """Return a text for each video that two records give different lengths."""
    known: dict[str, float] = {}
    found: dict[str, str] = {}
    for record in records:
        length = known.setdefault(record.video_id, record.duration)
        if lengths_differ(length, record.duration):
            found.setdefault(record.video_id, f"{record.video_id} lasts {length:g} s and {record.duration:g} s")
    return list(found.values())


def _entries(path: Path) -> list[tuple[str, Any]]:
    table = path.suffix.lower() == ".csv"
    try:
        with open(path, newline="" if table else None, encoding="utf-8-sig") as stream:
            text = stream.read()
    except UnicodeDecodeError as error:
        raise DataError([Problem(str(path), not_utf8(error), "save it as UTF-8")]) from error
    if table:
        rows: list[Mapping[str, Any]] = list(csv.DictReader(io.StringIO(text, newline="")))
    else:
        try:
            whole = json.loads(text)
        except json.JSONDecodeError as error:
            if path.suffix.lower() not in (".jsonl", ".ndjson"):
                where = f"{path}:{error.lineno}"
                raise DataError([Problem(where, f"not JSON ({error.msg})", HOW_TO_GIVE_DURATIONS)]) from error
            problems = Problems()
            whole = [row for _, row in json_lines(path, problems.of(path))]
            problems.raise_if_any()
        if isinstance(whole, dict) and not any(key in whole for key in _KEYS):
            return list(whole.items())
        rows = [row for row in (whole if isinstance(whole, list) else [whole]) if isinstance(row, dict)]
    name = next((key for key in _NAMES if rows and key in rows[0]), None)
    if name is None or not any(key in rows[0] for key in _KEYS):
        has = f"it has {list(rows[0])}" if rows else "it is empty"
        raise DataError([Problem(str(path), f"no video names and durations found; {has}", HOW_TO_GIVE_DURATIONS)])
    problems = Problems()
    for number, row in enumerate(rows, 1):
        if row.get(name) is None:
            problems.add(f"{path}, entry {number}", f"has no {name!r}", "name its video, or remove it")
    problems.raise_if_any()
    return [(str(row[name]), row) for row in rows]
