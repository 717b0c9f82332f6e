"""Files of queries, read window by window; moments and labels are ignored and need not be there.

A window is ``step`` entries of the file, counted from its start: lines, or sentences of a JSON file, which is read
whole. Blank lines count as entries without a query.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hero_plugin.integrations.data.checks import RecordChecks, as_number
from hero_plugin.integrations.data.formats import load_by_video
from hero_plugin.integrations.data.records import Record, clean_sentence
from hero_plugin.integrations.support.errors import DataError, Problem, not_utf8
from hero_plugin.integrations.support.files import OnProgress

VIDEO_KEYS = ("vid", "video", "video_id")
SENTENCE_KEYS = ("query", "sentence")
ID_KEYS = ("qid", "query_id")
DURATION_KEYS = ("duration", "video_duration")
_BLOCK = 1 << 20


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


class QueryFile(Protocol):
    """Queries in a fixed order."""

    size: int
    """Entries, blank ones counted."""
    digest: str
    """Of all that decides which queries these are."""

    def windows(self, wanted: range) -> Iterator[tuple[int, list[Query]]]:
        """Iterate over windows: the number of each, and its queries."""
        ...


def open_queries(path: Path, step: int, *, sentences: bool = False, progress: OnProgress | None = None) -> QueryFile:
    """Open a file of queries; its format is detected from its content.

    Args:
        path: the file.
        step: entries per window.
        sentences: whether a query may be a sentence without a video.
        progress: called with the bytes read and their total.

    Raises:
        DataError: the format is unknown, or a JSON file is damaged.
    """
    form = _form(path, sentences)
    if form == "videos":
        return _by_video(path, step)
    parser = {"json": JsonLine, "text": TextLine, "sentences": SentenceLine}[form]
    return LineQueries(path, step, parser, progress)


def _form(path: Path, sentences: bool) -> str:
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        head = stream.read(1 << 16).lstrip()
    lines = head.split("\n")
    if head.startswith("{"):
        try:
            row = json.loads(lines[0])
        except json.JSONDecodeError:  # an object over many lines, a line longer than the head, or a damaged one
            row = VIDEO_KEYS if len(lines) > 2 and lines[1].lstrip().startswith('{"') else ()
        return "json" if any(name in row for name in (*VIDEO_KEYS, *SENTENCE_KEYS)) else "videos"
    if any("##" in line for line in lines[:100]):
        return "text"
    if head and sentences:
        return "sentences"
    what = f"cannot tell its format; it begins {head[:60]!r}" if head else "an empty file"
    fix = 'expected JSON lines of {"vid", "query"}, an annotation file, or, with --every-video, one sentence per line'
    raise DataError([Problem(str(path), what, fix)])


Parse = Callable[[str, int, str], Query]
"""Where, the line's number from 1, the line -> the query."""


class JsonLine:
    """Parser of one JSON object per line: QVHighlights format and plainer ones."""

    counts = False

    def __call__(self, where: str, number: int, line: str) -> Query:
        """Parse one line."""
        unnamed = str(number - 1)
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            return Query(where, unnamed, wrong=f"not JSON ({error.msg} at column {error.colno})")
        if not isinstance(row, dict):
            return Query(where, unnamed, wrong=f"expected a JSON object, got {line[:60]!r}")
        given = _first(row, ID_KEYS)
        name = unnamed if given is None else str(given)
        as_text = isinstance(given, str) and given.isdecimal() and str(int(given)) == given
        video = _first(row, VIDEO_KEYS)
        found = Query(where, name, "" if video is None else str(video), id_is_text=as_text)
        sentence = _first(row, SENTENCE_KEYS)
        if not isinstance(sentence, str):
            return replace(found, wrong=f"the query must be text, got {sentence!r}")
        return replace(found, sentence=sentence, duration=_first(row, DURATION_KEYS))


class TextLine:
    """Parser of Charades-STA lines: ``VIDEO START END##sentence``, or without the moment.

    Ids count the sentences of a video.
    """

    counts = True
    """Ids depend on the lines before."""

    def __init__(self) -> None:
        self.before: Counter[str] = Counter()

    def __call__(self, where: str, number: int, line: str) -> Query:
        """Parse one line."""
        head, mark, sentence = line.partition("##")
        fields = head.split()
        if not mark or len(fields) not in (1, 3):
            what = f"expected `VIDEO START END##sentence` or `VIDEO##sentence`, got {line[:60]!r}"
            return Query(where, str(number - 1), wrong=what)
        position = self.before[fields[0]]
        self.before[fields[0]] += 1
        return Query(where, f"{fields[0]}_{position}", fields[0], sentence)


class SentenceLine:
    """Parser of one sentence per line."""

    counts = False

    def __call__(self, where: str, number: int, line: str) -> Query:
        """Parse one line."""
        return Query(where, str(number - 1), sentence=line)


class LineQueries:
    """File of one query per line, never held in memory: one pass finds its checksum and where windows start."""

    def __init__(self, path: Path, step: int, parser: type, progress: OnProgress | None = None) -> None:
        self.path, self.step, self._parser = path, step, parser
        self.size, self.digest, self._starts = _index(path, step, progress)

    def windows(self, wanted: range) -> Iterator[tuple[int, list[Query]]]:
        """Iterate over windows: the number of each, and its queries."""
        parse: Any = self._parser()
        with open(self.path, "rb") as stream:
            if parse.counts:
                for number in range(wanted.start):
                    self._window(stream, number, parse)
            for number in wanted:
                yield number, self._window(stream, number, parse)

    def _window(self, stream: Any, number: int, parse: Parse) -> list[Query]:
        stream.seek(self._starts[number])
        found = []
        lines = stream.read(self._starts[number + 1] - self._starts[number]).split(b"\n")
        for line, raw in enumerate(lines[: self.step], number * self.step + 1):
            where = f"{self.path}:{line}"
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                what = not_utf8(error)
                found.append(Query(where, str(line - 1), wrong=what))
                continue
            if text.strip():
                found.append(parse(where, line, text))
        return found


class ListedQueries:
    """Queries in memory."""

    def __init__(self, queries: Sequence[Query], step: int, digest: str) -> None:
        self.queries, self.step, self.digest, self.size = queries, step, digest, len(queries)

    def windows(self, wanted: range) -> Iterator[tuple[int, list[Query]]]:
        """Iterate over windows: the number of each, and its queries."""
        for number in wanted:
            yield number, list(self.queries[number * self.step : (number + 1) * self.step])


class EveryVideo:
    """Each of some queries paired with each of some videos, video by video; ids are ``QID@VIDEO``."""

    def __init__(self, queries: Sequence[Query], videos: Sequence[str], step: int, digest: str) -> None:
        self.queries, self.videos, self.step = queries, videos, step
        self.size = len(queries) * len(videos)
        names = hashlib.sha256("\n".join(videos).encode()).hexdigest()
        self.digest = hashlib.sha256(f"{digest} of every video of {names}".encode()).hexdigest()

    def windows(self, wanted: range) -> Iterator[tuple[int, list[Query]]]:
        """Iterate over windows: the number of each, and its queries."""
        for number in wanted:
            yield (
                number,
                [self._pair(pair) for pair in range(number * self.step, min((number + 1) * self.step, self.size))],
            )

    def _pair(self, number: int) -> Query:
        query, video = self.queries[number % len(self.queries)], self.videos[number // len(self.queries)]
        return Query(f"{query.where}, video {video}", pair_id(query.query_id, video), video, query.sentence)


def pair_id(query: str, video: str) -> str:
    """Return the id of a query paired with one video."""
    return f"{query}@{video}"


def _by_video(path: Path, step: int) -> ListedQueries:
    """Read a JSON object of videos: ActivityNet Captions, Charades-CD, Charades-CG."""
    checks = RecordChecks(path)
    data = load_by_video(path, checks)
    if checks.fatal:
        raise DataError(checks.fatal)
    found = []
    for video, entry in data.items():
        where = f"{path}: video {video}"
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if not isinstance(sentences, list):
            found.append(Query(where, video, video, wrong="expected a list `sentences`"))
            continue
        for position, raw in enumerate(sentences):
            spot, name, seconds = f"{where}, sentence {position + 1}", f"{video}_{position}", None
            wrong = "" if isinstance(raw, str) else f"the query must be text, got {raw!r}"
            seconds = _first(entry, DURATION_KEYS)
            found.append(Query(spot, name, video, raw, seconds, wrong=wrong))
    if not any(not query.wrong for query in found):
        what = f"none of its {len(data)} entries has a list `sentences`"
        raise DataError([Problem(str(path), what, "is this a file of queries?")])
    return ListedQueries(found, step, hashlib.sha256(path.read_bytes()).hexdigest())


def _index(path: Path, step: int, progress: OnProgress | None) -> tuple[int, str, list[int]]:
    """Return the number of lines, the file's SHA-256, and where each window starts, the file's end last."""
    digest, lines, done, total = hashlib.sha256(), 0, 0, path.stat().st_size
    starts, last = [0], b"\n"
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
            first = -(lines + 1) % step  # the line end in this block that ends a window
            starts.extend((done + 1 + ends[first::step]).tolist())
            lines, done, last = lines + len(ends), done + len(block), block[-1:]
            if progress is not None:
                progress(done, total)
    lines += last != b"\n"
    if starts[-1] != done:
        starts.append(done)
    return lines, digest.hexdigest(), starts


def _first(row: Any, names: Sequence[str]) -> Any:
    """Return the value of the first of these keys that is present and not null."""
    return next((row[name] for name in names if row.get(name) is not None), None)


# Check of queries: which can be answered, and why the others cannot.


_LENGTH = "add a duration to the query, or give --durations FILE or --clip-seconds SECONDS"


class QueryValidator:
    """Turn queries into records, or into what is wrong with them.

    Args:
        videos: ids of the videos that have features.
        tokenize: sentence to words, as the run has it.
        durations: length of each video in seconds, where the query does not say it.
        clip_seconds: how long a clip lasts, for videos of unknown length.
        has_features: whether a query (by its id and its video's) has features of its own, where the base reads such.
        features: name of the features, for messages.
    """

    def __init__(
        self,
        videos: Container[str],
        tokenize: Callable[[str], list[str]],
        *,
        durations: Mapping[str, float] | None = None,
        clip_seconds: float | None = None,
        has_features: Callable[[str, str], bool] = lambda query, video: True,
        features: str = "the features",
    ) -> None:
        self.videos, self.tokenize, self.durations = videos, tokenize, durations or {}
        self.clip_seconds, self.has_features, self.features = clip_seconds, has_features, features

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
        if not self.has_features(query.query_id, query.video):
            return Problem(query.where, f"no features of query {query.query_id}", "add its file, or remove the query")
        raw = self.durations.get(query.video) if query.duration is None else query.duration
        if raw is None:
            if self.clip_seconds is None:
                return Problem(query.where, f"the length of video {query.video} is not known", _LENGTH)
            return query.record(math.nan)
        seconds = as_number(raw)
        if seconds is None or seconds <= 0:
            what = f"the video's duration must be a positive number of seconds, got {raw!r}"
            return Problem(query.where, what, "correct or remove the query")
        return query.record(seconds)
