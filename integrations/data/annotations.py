"""Annotation files of any format: read into records, and written from them."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hero_plugin.integrations.data import formats
from hero_plugin.integrations.data.checks import (
    Durations,
    OnBroken,
    OnOutside,
    ReadReport,
    RecordChecks,
    load_durations,
)
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.support.console import bar
from hero_plugin.integrations.support.errors import DataError, Problem, Problems
from hero_plugin.integrations.support.files import OnProgress

Format = Literal[
    "charades-sta",
    "charades-cd",
    "charades-cg",
    "activitynet",
    "activitynet-cd",
    "captions",
    "qvhighlights",
    "lighthouse",
]
"""The names that commands take to write; they read ``json-array``, too."""
READERS: Mapping[str, Callable[..., None]] = {
    "charades-sta": formats.read_charades_sta,
    "charades-cd": formats.read_by_video,
    "captions": formats.read_by_video,
    "qvhighlights": formats.read_qvhighlights,
    "json-array": formats.read_json_array,
}
_WRITERS: Mapping[str, Callable[[Sequence[Record], Path], None]] = {
    "charades-sta": formats.write_charades_sta,
    "charades-cd": formats.write_charades_cd,
    "captions": formats.write_captions,
    "qvhighlights": formats.write_qvhighlights,
}
FORMATS = tuple(READERS)
WRITTEN = tuple(_WRITERS)
_ALIASES = {
    "charades-cg": "captions",
    "activitynet": "captions",
    "activitynet-cd": "captions",
    "activitynet-captions": "captions",
    "moment-detr": "qvhighlights",
    "lighthouse": "qvhighlights",
}
_LINE = re.compile(r"^\S+\s+\S+\s+\S+##")


_OTHERS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ('"language_queries"',),
        "Ego4D's own NLQ annotations, of several clips per video",
        "give the JSON that VSLNet's prepare_ego4d_dataset.py makes of it",
    ),
    (
        ('"num_segments"', '"times"'),
        "DiDeMo's annotations, segments of 5 s by several annotators who need not agree",
        f"choose one moment per query, and {formats.AS_JSONL}",
    ),
    (('"conversations"',), "conversations of a video language model, with times in their text", formats.AS_JSONL),
    (('"QA"', '"q"'), "questions and answers of a video language model, with times in their text", formats.AS_JSONL),
    (('"chapters"',), "chapters that say only where they begin, as VidChapters'", formats.AS_JSONL),
    (
        ('"domain"', '"frames"', '"fps"'),
        "highlight labels of TVSum or YouTube Highlights, without sentences or windows",
        "use the evaluation for highlights of UMT or lighthouse",
    ),
    (('"pred_relevant_windows"',), "predictions", "score them with hero-plugin eval --submission"),
    (('"database"',), "action labels, as ActivityNet's and HACS', without sentences", "give captions, with sentences"),
)
"""Marks of files that are no annotations of moments, what the files are, and what to do."""


def format_name(name: str) -> str:
    """Return the canonical name of a format; raise ``ValueError`` for an unknown one."""
    known = _ALIASES.get(name, name)
    if known not in FORMATS:
        raise ValueError(f"format must be one of {', '.join((*FORMATS, *_ALIASES))}, got {name!r}")
    return known


def detect_format(path: Path) -> str:
    """Detect the format of a file by its content, not by its name; ``DataError`` where it is none of the known."""
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        head = stream.read(1 << 16)
    text = head.lstrip()
    readable = any(name in head for name in ('"sentence', '"relevant_windows"'))
    for marks, what, fix in () if readable else _OTHERS:
        if all(mark in head for mark in marks):
            raise DataError([Problem(str(path), what, fix)])
    if re.match(r"\[\s*[\[{]", text):
        return "json-array"
    if text.startswith("{"):
        first = text.split("\n", 1)[0]
        if re.match(r'\{\s*"(?:qid|query|vid|duration|relevant_\w+|saliency_scores)"\s*:', first):
            return "qvhighlights"
        try:
            row = json.loads(first)
        except json.JSONDecodeError:
            row = None  # one object over many lines, or a line longer than the head
        of_one_query = row and ("query" in row or not any(isinstance(value, dict) for value in row.values()))
        if isinstance(row, dict) and (of_one_query or text[len(first) :].lstrip().startswith("{")):
            return "qvhighlights"
        return "charades-cd" if '"video_duration"' in head or '"framestamps"' in head else "captions"
    if any(_LINE.match(line) for line in text.split("\n")[:100]):
        return "charades-sta"
    what = f"cannot tell its format; it begins {text[:60]!r}" if text else "an empty file"
    fix = f"name it with format=... (--from), one of {', '.join(FORMATS)}, or {formats.AS_JSONL}"
    if text.startswith("\ufffd"):
        what, fix = "no text: a pickle or another binary file, which is never loaded", formats.AS_JSONL
    raise DataError([Problem(str(path), what, fix)])


def read_annotations(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",
    durations: Durations | None = None,
    split: str = "",
    on_outside: OnOutside = "clamp",
    on_broken: OnBroken = "error",
    unique_ids: bool = True,
    report: ReadReport | None = None,
    progress: OnProgress | None = None,
) -> list[Record]:
    """Read an annotation file into records, in the file's order.

    Args:
        path: The file.
        format: "charades-sta", "charades-cd", "captions" (also "activitynet", "activitynet-cd", "charades-cg"),
            "qvhighlights" (also "lighthouse", "moment-detr"), "json-array", or "auto": detected from the content.
        durations: Seconds by video, for files that hold none (Charades-STA text): a mapping, a file or files; see
            ``load_durations``.
        split: The ``split`` of the records.
        on_outside: What to do with a moment that ends after its video. "clamp" ends it with the video (the default:
            one Charades moment in seven ends up to 1.5 s late, and EMB, lighthouse and Charades' own code all clamp),
            "keep" leaves it, "error" makes it a problem.
        on_broken: What to do with a query that cannot be used (a malformed line, an empty query, end <= start, a start
            before 0 or after the video's end, NaN, an id that occurs twice). "error" raises one ``DataError`` with
            all of them; "drop" leaves them out, with a warning, or noted in ``report`` where one is given.
        unique_ids: Whether an id that occurs twice is a problem; false for callers that give new ids.
        report: Filled with what was changed or left out.
        progress: Called as progress(bytes read, bytes in all).

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: An option is wrong.
        DataError: The file has problems.
    """
    path = _existing(path)
    known = None if durations is None else load_durations(durations)
    checks = RecordChecks(path, on_outside, on_broken, split, unique_ids=unique_ids, durations=known)
    name = detect_format(path) if format == "auto" else format_name(format)
    READERS[name](checks, progress)
    if report is not None:
        report.format = name
    return checks.finish(report)


def write_annotations(records: Sequence[Record], path: str | os.PathLike[str], *, format: str) -> None:
    """Write records as ``format`` (names as in ``read_annotations``); the file appears whole or not at all.

    What a format has no place for is left out: ids and durations in Charades-STA text, ids in captions. ``DataError``
    where a record cannot be written at all, such as several moments in a format of one.
    """
    known = format_name(format)
    if known not in _WRITERS:
        raise ValueError(f"{known} is read and not written; write one of {', '.join(_WRITERS)}")
    path = Path(path)
    if not records:
        raise DataError([Problem(str(path), "no records to write", "check what was read or left out")])
    _WRITERS[known](list(records), path)


class _WordsOnly(RecordChecks):
    """Checks of the sentence alone: three queries of Charades-CD test-ood begin after their video and count."""

    def known_duration(self, video: str) -> float | None:
        return 1.0

    def duration(self, where: str, raw: Any) -> float | None:
        return 1.0

    def moment(self, where: str, raw: Any, duration: float) -> tuple[float, float] | None:
        return 0.0, 1.0


def read_sentences(
    path: str | os.PathLike[str],
    progress: OnProgress | None = None,
    *,
    on_broken: OnBroken = "error",
    report: ReadReport | None = None,
) -> list[Record]:
    """Read the queries of a file in any format, in its order. Moments and durations of these records mean nothing.

    The options are those of ``read_annotations``.

    Raises:
        FileNotFoundError: The file is missing.
        DataError: Lines are malformed, or queries empty.
    """
    path = _existing(path)
    checks = _WordsOnly(path, on_broken=on_broken, durations={})
    READERS[detect_format(path)](checks, progress)
    return checks.finish(report)


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no annotation file at {path}")
    return Path(path)


def read_many(
    files: Sequence[Path], read: Callable[..., list[Record]] = read_annotations, **options: Any
) -> list[Record]:
    """Read several files in order, by ``read_annotations`` or ``read_sentences``; ``DataError`` with all problems."""
    records: list[Record] = []
    problems = Problems()
    for file in files:
        with problems.collecting(), bar(f"reading {file.name}") as progress:
            records += read(file, progress=progress, **options)
    problems.raise_if_any()
    return records


def words_of(records: Sequence[Record]) -> set[str]:
    """Return the distinct words of all sentences."""
    return {word for record in records for word in tokenize(record.sentence)}
