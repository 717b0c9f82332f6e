"""Files of queries, read window by window; moments and labels are ignored and need not be there.

A window is ``step`` entries of the file, counted from its start: lines, or sentences of a JSON file, which is read
whole. Blank lines count as entries without a query.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from hero_plugin.integrations.data import Record
from hero_plugin.integrations.data.checks import RecordChecks, as_number, lengths_differ
from hero_plugin.integrations.data.formats import FRAMES, load_by_video, renamed
from hero_plugin.integrations.data.records import clean_sentence
from hero_plugin.integrations.support import DataError, OnProgress, Problem
from hero_plugin.integrations.support.errors import not_utf8
from hero_plugin.integrations.support.files import iter_lines

VIDEO_KEYS = ("vid", "video", "video_id")
SENTENCE_KEYS = ("query", "sentence")
DURATION_KEYS = ("duration", "video_duration")
AS_LINES = "`hero-plugin data convert --to qvhighlights` makes such lines of other annotations"


@dataclass(frozen=True, slots=True)
class Query:
    """One query as its file has it, or what is wrong with it."""

    where: str
    query_id: str
    video: str = ""
    sentence: Any = ""
    duration: Any = None
    id_is_text: bool = False
    """The file had the id as text although it is a number."""
    wrong: str = ""

    def record(self, duration: float) -> Record:
        """Return the record that the readers of annotations would make of it."""
        sentence = clean_sentence(self.sentence)
        extra = {} if sentence == self.sentence else {"raw_sentence": self.sentence}
        if self.id_is_text:
            extra["qid"] = self.query_id
        return Record(self.query_id, self.video, sentence, (), duration, extra=extra)


class QueryFile(ABC):
    """Queries in a fixed order, cut into windows.

    Attributes:
        size: number of entries, blank ones counted.
        step: entries per window.
        digest: of all that decides which queries these are.
    """

    size: int
    step: int
    digest: str

    @property
    def count(self) -> int:
        """Number of windows."""
        return -(-self.size // self.step)

    @abstractmethod
    def windows(self, wanted: range) -> Iterator[tuple[int, list[Query]]]:
        """Iterate over windows: the number of each, and its queries."""


class ListedQueries(QueryFile):
    """Queries in memory."""

    def __init__(self, queries: Sequence[Query], step: int, digest: str) -> None:
        self.queries, self.step, self.digest, self.size = queries, step, digest, len(queries)

    def windows(self, wanted: range) -> Iterator[tuple[int, list[Query]]]:
        """Iterate over windows: the number of each, and its queries."""
        for number in wanted:
            first = number * self.step
            yield number, [self._query(place) for place in range(first, min(first + self.step, self.size))]

    def _query(self, place: int) -> Query:
        return self.queries[place]


class EveryVideo(ListedQueries):
    """Each of some queries paired with each of some videos, video by video; ids are ``QID@VIDEO``."""

    def __init__(self, queries: Sequence[Query], videos: Sequence[str], step: int, digest: str) -> None:
        names = hashlib.sha256("\n".join(videos).encode()).hexdigest()
        super().__init__(queries, step, hashlib.sha256(f"{digest} of every video of {names}".encode()).hexdigest())
        self.videos, self.size = videos, len(queries) * len(videos)

    def _query(self, place: int) -> Query:
        query, video = self.queries[place % len(self.queries)], self.videos[place // len(self.queries)]
        return Query(f"{query.where}, video {video}", f"{query.query_id}@{video}", video, query.sentence)


ParseLine = Callable[[str, str, str, Counter[str]], Query]
"""Where, the id of a query without one, the line, and how many sentences each video had before -> the query."""


class LineQueries(QueryFile):
    """File of one query per line, never held in memory: one pass finds its checksum and where windows start."""

    def __init__(self, path: Path, step: int, parse: ParseLine, progress: OnProgress | None = None) -> None:
        self.path, self.step, self._parse = path, step, parse
        self.size, self.digest, self._starts = _index(path, step, progress)

    def windows(self, wanted: range) -> Iterator[tuple[int, list[Query]]]:
        """Iterate over windows: the number of each, and its queries."""
        before: Counter[str] = Counter()
        with open(self.path, "rb") as stream:
            for number in range(wanted.start if self._parse is _text_line else 0):
                self._window(stream, number, before)
            for number in wanted:
                yield number, self._window(stream, number, before)

    def _window(self, stream: IO[bytes], number: int, before: Counter[str]) -> list[Query]:
        stream.seek(self._starts[number])
        found = []
        lines = stream.read(self._starts[number + 1] - self._starts[number]).split(b"\n")
        for line, raw in enumerate(lines[: self.step], number * self.step + 1):
            where = f"{self.path}:{line}"
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                found.append(Query(where, str(line - 1), wrong=not_utf8(error)))
                continue
            if text.strip():
                found.append(self._parse(where, str(line - 1), text, before))
        return found


def _json_line(where: str, unnamed: str, line: str, before: Counter[str]) -> Query:
    """Parse a JSON object: QVHighlights format and plainer ones."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return Query(where, unnamed, wrong=f"not JSON ({error.msg} at column {error.colno})")
    if not isinstance(row, dict):
        return Query(where, unnamed, wrong=f"expected a JSON object, got {line[:60]!r}")
    row = renamed(row)  # where there are several names of a video, the one that ``eval`` takes
    given, video, sentence = _first(row, ("qid", "query_id")), _first(row, VIDEO_KEYS), _first(row, SENTENCE_KEYS)
    name = unnamed if given is None else str(given)
    as_text = isinstance(given, str) and given.isdecimal() and str(int(given)) == given
    found = Query(where, name, "" if video is None else str(video), id_is_text=as_text)
    if not isinstance(sentence, str):
        return replace(found, wrong=f"the query must be text, got {sentence!r}")
    return replace(found, sentence=sentence, duration=_first(row, DURATION_KEYS))


def _text_line(where: str, unnamed: str, line: str, before: Counter[str]) -> Query:
    """Parse Charades-STA's ``VIDEO START END##sentence``, or without the moment; ids count a video's sentences."""
    head, mark, sentence = line.partition("##")
    fields = head.split()
    if not mark or len(fields) not in (1, 3):
        what = f"expected `VIDEO START END##sentence` or `VIDEO##sentence`, got {line[:60]!r}"
        return Query(where, unnamed, wrong=what)
    before[fields[0]] += 1
    return Query(where, f"{fields[0]}_{before[fields[0]] - 1}", fields[0], sentence)


def _sentence_line(where: str, unnamed: str, line: str, before: Counter[str]) -> Query:
    """Parse a sentence without a video."""
    return Query(where, unnamed, sentence=line)


def open_queries(path: Path, step: int, *, sentences: bool = False, progress: OnProgress | None = None) -> QueryFile:
    """Open a file of queries; its format is detected from its content.

    With ``sentences``, a query may be a sentence without a video. Raises ``DataError`` where the format is unknown, or
    a JSON file is damaged.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        head = stream.read(1 << 16).lstrip()
    lines = head.split("\n")
    if head.startswith("{"):
        try:
            row = json.loads(lines[0])
        except json.JSONDecodeError:  # an object over many lines, a line longer than the head, or a damaged one
            one_per_line = len(lines) > 2 and lines[1].lstrip().startswith('{"')
        else:
            one_per_line = any(name in row for name in (*VIDEO_KEYS, *SENTENCE_KEYS))
        return LineQueries(path, step, _json_line, progress) if one_per_line else _by_video(path, step)
    if any("##" in line for line in lines[:100]):
        return LineQueries(path, step, _text_line, progress)
    if head.startswith("[") or (sentences and any("\t" in line for line in lines[:100])):
        what = "a JSON array" if head.startswith("[") else "lines with tabs, as of a table"
        fix = 'write JSON lines of {"vid", "query"}, or one sentence per line'
        raise DataError([Problem(str(path), what, f"{fix}; {AS_LINES}")])
    if head and sentences:
        return LineQueries(path, step, _sentence_line, progress)
    what = f"cannot tell its format; it begins {head[:60]!r}" if head else "an empty file"
    fix = 'expected JSON lines of {"vid", "query"}, an annotation file, or, with --every-video, one sentence per line'
    raise DataError([Problem(str(path), what, fix)])


def _by_video(path: Path, step: int) -> ListedQueries:
    """Read a JSON object of videos: ActivityNet Captions, Charades-CD, Charades-CG."""
    checks = RecordChecks(path)
    data = load_by_video(checks)
    if checks.fatal:
        raise DataError(checks.fatal)
    found = []
    for video, entry in data.items():
        where = f"{path}: video {video}"
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if not isinstance(sentences, list):
            found.append(Query(where, video, video, wrong="expected a list `sentences`"))
            continue
        seconds, (fps, frames) = _first(entry, DURATION_KEYS), (as_number(entry.get(key)) for key in FRAMES)
        if seconds is None and fps and frames:
            seconds = frames / fps
        for position, raw in enumerate(sentences):
            wrong = "" if isinstance(raw, str) else f"the query must be text, got {raw!r}"
            spot = f"{where}, sentence {position + 1}"
            found.append(Query(spot, f"{video}_{position}", video, raw, seconds, wrong=wrong))
    if all(query.wrong for query in found):
        what = f"none of its {len(data)} entries has a list `sentences`"
        raise DataError([Problem(str(path), what, f"is this a file of queries? {AS_LINES}")])
    return ListedQueries(found, step, hashlib.sha256(path.read_bytes()).hexdigest())


def _index(path: Path, step: int, progress: OnProgress | None) -> tuple[int, str, list[int]]:
    """Return the number of lines, the file's SHA-256, and where each window starts, the file's end last."""
    digest, lines, done, starts = hashlib.sha256(), 0, 0, [0]
    for lines, line in iter_lines(path, progress):
        digest.update(line)
        done += len(line)
        if lines % step == 0:
            starts.append(done)
    if starts[-1] != done:
        starts.append(done)
    return lines, digest.hexdigest(), starts


def _first(row: Any, names: Sequence[str]) -> Any:
    """Return the value of the first of these keys that is present and not null."""
    return next((row[name] for name in names if row.get(name) is not None), None)


@dataclass(frozen=True)
class QueryValidator:
    """Check of queries: turns them into records, or into what is wrong with them."""

    videos: Container[str]
    """Ids of the videos that have features."""
    tokenize: Callable[[str], list[str]]
    """Sentence to words, as the run has it."""
    durations: Mapping[str, float]
    """Length of each video in seconds, where the query does not say it."""
    clip_seconds: float | None
    """How long a clip lasts, for videos of unknown length."""
    own_features: Callable[[Query], Problem | None] | None
    """What is wrong with a query's own features, None if nothing is; None for a base that reads no such."""
    features: str
    """Name of the features, for messages."""
    lengths: dict[str, float] = field(default_factory=dict)
    """Length of each video in its first query, which the others must agree with."""

    def sentence(self, query: Query) -> Problem | None:
        """Return what is wrong with the words of a query, None if nothing is."""
        if query.wrong:
            return Problem(query.where, query.wrong, "correct or remove the query")
        if not self.tokenize(query.sentence):
            return Problem(query.where, f"no word in {query.sentence!r}", "write a sentence, or remove the query")
        return None

    def __call__(self, query: Query) -> Record | Problem:
        """Return a record, or what is wrong; its duration is NaN while the video's clips are not counted yet."""
        problem = self.sentence(query)
        if problem is not None:
            return problem
        if query.video not in self.videos:
            named = f"no features of video {query.video!r} in {self.features}" if query.video else "names no video"
            return Problem(query.where, named, "add them, or remove the query")
        if self.own_features is not None and (problem := self.own_features(query)):
            return problem
        raw = self.durations.get(query.video) if query.duration is None else query.duration
        if raw is None:
            if self.clip_seconds is None:
                fix = "add a duration to the query, or give --durations FILE or --clip-seconds SECONDS"
                return Problem(query.where, f"the length of video {query.video} is not known", fix)
            return query.record(math.nan)
        seconds = as_number(raw)
        if seconds is None or seconds <= 0:
            what = f"the video's duration must be a positive number of seconds, got {raw!r}"
            return Problem(query.where, what, "correct or remove the query")
        if lengths_differ(known := self.lengths.setdefault(query.video, seconds), seconds):
            what = f"video {query.video} lasts {seconds:g} s here, {known:g} s in a query before"
            return Problem(query.where, what, "give each video one duration")
        return query.record(seconds)
