"""Submissions in QVHighlights' form: one JSON object per query and line, written, checked, and scored.

``{"qid", "query", "vid", "pred_relevant_windows": [[start, end, score], ...], "pred_saliency_scores": [...]}``:
windows in seconds, the most likely first, and one saliency score for each clip of two seconds. Moment-DETR, its
descendants and lighthouse write such files, and QVHighlights' official evaluation reads them.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hero_plugin.integrations.data.checks import json_lines
from hero_plugin.integrations.data.formats import qid, raw_sentence
from hero_plugin.integrations.data.moments import STEADY
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import same_words
from hero_plugin.integrations.scoring.qvhighlights import (
    ANNOTATORS,
    CLIP_LENGTH,
    RANKED,
    clip_scores,
    qvhighlights_scores,
)
from hero_plugin.integrations.support.errors import DataError, Problems
from hero_plugin.integrations.support.files import atomic_write

WINDOWS, SALIENCY = "pred_relevant_windows", "pred_saliency_scores"
CLIPS_OFF = 2
"""Number of saliency scores that may be missing or extra: feature extractors round a video's end differently."""

Line = dict[str, Any]
Numbered = tuple[int, Line]
"""A line with its number in the file."""


def submission_line(record: Record, windows: ArrayLike, scores: ArrayLike, saliency: ArrayLike | None = None) -> Line:
    """Return the line of one query, its windows sorted by score; equal scores keep their order.

    ``windows`` (K, 2) are start and end in seconds, ``scores`` are (K,), ``saliency`` (T,) is one score per clip, None
    for a model without. Numbers are rounded to four decimals, and windows cut at the video's end: models that answer on
    a grid of clips, and the rounding, go past it. ``ValueError`` where shapes do not fit, there is no window, or
    numbers are not finite.
    """
    found, weights = np.asarray(windows, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found):
        raise ValueError(f"windows must be (K, 2), start and end of at least one window, got {found.shape}")
    if weights.shape != found.shape[:1]:
        raise ValueError(f"scores must be (K,)=({len(found)},), one per window, got {weights.shape}")
    order = np.argsort(-weights, kind="stable")
    ranked = np.column_stack([found, weights])[order]
    line: Line = {"qid": qid(record), "query": raw_sentence(record), "vid": record.video_id}
    ranked = _rounded("windows and scores", ranked)
    ranked[:, :2] = np.minimum(ranked[:, :2], record.duration)
    line[WINDOWS] = ranked.tolist()
    if saliency is not None:
        clips = np.asarray(saliency, dtype=np.float64)
        if clips.ndim != 1 or not len(clips):
            raise ValueError(f"saliency must be (T,), one score per clip, got {clips.shape}")
        line[SALIENCY] = _rounded("saliency", clips).tolist()
    return line


def annotation_row(record: Record) -> dict[str, Any]:
    """Return the part of an annotated query that ``qvhighlights_scores`` reads."""
    return {
        "qid": qid(record),
        "duration": record.duration,
        "relevant_windows": record.moments,
        "relevant_clip_ids": [clip for clip, _ in record.saliency],
        "saliency_scores": [scores for _, scores in record.saliency],
    }


def has_official_labels(record: Record) -> bool:
    """Return whether a query has what QVHighlights scores: moments, and three annotators' scores of clips of 2 s."""
    if not record.moments or not any(scores for _, scores in record.saliency):
        return False
    try:
        return len(_clip_scores(record)) > 0
    except ValueError:
        return False


def _clip_scores(record: Record) -> np.ndarray:
    clips = [clip for clip, _ in record.saliency]
    return clip_scores(clips, [scores for _, scores in record.saliency], record.duration)


def official_scores(lines: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Score a model's own lines as QVHighlights does; moment retrieval alone where the records have no saliency.

    There is one line per record, as from ``submission_line``, in any order. ``ValueError`` where some records have
    saliency and others none, which would count as failed; and what the parts raise.
    """
    labelled = sum(bool(record.saliency) for record in records)
    if 0 < labelled < len(records):
        raise ValueError(f"{labelled} of {len(records)} records have saliency: score those that have it on their own")
    if not labelled:
        lines = [{key: value for key, value in line.items() if key != SALIENCY} for line in lines]
    return qvhighlights_scores(lines, [annotation_row(record) for record in records])


def clips_are_scored(clips: Sequence[int], durations: Sequence[float], clip_length: float = 0.0) -> bool:
    """Return whether a model's clips are those that the form has saliency for: of two seconds, bar a few at the end.

    ``clips`` are the numbers of clips of the videos, ``durations`` their seconds, ``clip_length`` the seconds of a
    clip; 0: a video's clips share its duration, and the typical one tells, as in a short video a few that lack, or a
    part of one at its end, make the others longer or shorter.
    """
    found, seconds = np.asarray(clips, np.float64), np.asarray(durations, np.float64)
    if not (np.abs(found - np.ceil(seconds / CLIP_LENGTH)) <= CLIPS_OFF).all():
        return False
    if clip_length:
        return abs(clip_length - CLIP_LENGTH) <= STEADY * CLIP_LENGTH
    beyond = np.abs(seconds - found * CLIP_LENGTH)
    typical = float(np.median(seconds / np.maximum(found, 1)))
    return float(np.median(beyond)) < CLIP_LENGTH or abs(typical - CLIP_LENGTH) <= STEADY * CLIP_LENGTH


def unscored_videos(records: Sequence[Record], clips: Sequence[int], clip_length: float = 0.0) -> dict[str, str]:
    """Return a text for each video whose clips are not those that the form has saliency for; none if the set's are."""
    durations = [record.duration for record in records]
    if not records or clips_are_scored(clips, durations, clip_length):
        return {}
    return {
        record.video_id: f"{record.video_id} ({count} clips, {record.duration:g} s)"
        for record, count in zip(records, clips, strict=True)
        if not clips_are_scored([count], [record.duration], clip_length)
    }


def write_submission(path: str | Path, lines: Iterable[Mapping[str, Any]]) -> int:
    """Write lines as they come; the file appears once it is complete. Return their number."""
    count = 0
    with atomic_write(path) as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _rounded(name: str, values: np.ndarray) -> np.ndarray:
    """Round to four decimals, as Moment-DETR and its descendants do."""
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(values))} that are not")
    return values.round(4) + 0.0  # + 0.0: no minus sign before a zero


@dataclass(frozen=True)
class Submission:
    """The part of a submission that can be scored: lines and annotations of the same queries, with notes on them."""

    lines: list[Line]
    annotations: list[dict[str, Any]]
    """In the form that ``qvhighlights_scores`` takes, in the order of the lines."""
    notes: tuple[str, ...]


def read_submission(
    path: Path,
    records: Sequence[Record],
    *,
    partial: bool = False,
    truth: str = "the annotations",
    left_out: AbstractSet[Any] = frozenset(),
) -> Submission:
    """Read a submission and match it with annotations.

    Args:
        path: The submission.
        records: The annotated queries.
        partial: Score the queries that both have, instead of requiring all of them.
        truth: Name of the annotations in messages.
        left_out: qids of annotations that do not count; their lines do not either.

    Raises:
        DataError: Everything that is wrong, first with the queries, then line by line.
        FileNotFoundError: The file is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no submission {path}")
    reading = _Reading(str(path), truth)
    every = reading.parse()
    rows = [numbered for numbered in every if numbered[1]["qid"] not in left_out]
    known = {qid(record): record for record in records}
    rows = reading.match(rows, known, partial)
    if count := sum(row["qid"] in left_out for _, row in every):
        reading.notes.insert(0, f"{count} lines are about queries left out of {truth}, and do not count")
    chosen = [known[row["qid"]] for _, row in rows]
    reading.check_queries(rows, chosen)
    kinds = reading.kinds(rows, chosen)
    if WINDOWS in kinds:
        reading.check_windows(rows, chosen)
    if SALIENCY in kinds:
        reading.check_saliency(rows, chosen)
    if problems := [*reading.of_queries, *reading.of_lines]:
        raise DataError(problems)
    lines = [{key: row[key] for key in ("qid", *kinds)} for _, row in rows]
    return Submission(lines, [annotation_row(record) for record in chosen], tuple(reading.notes))


class _Reading:
    """The reading of one submission: what is wrong with its queries and lines, and notes on the rest."""

    def __init__(self, path: str, truth: str) -> None:
        self.path, self.truth = path, truth
        self.of_queries, self.of_lines = Problems(), Problems()
        self.notes: list[str] = []

    def parse(self) -> list[Numbered]:
        """Return the lines that are objects with a qid."""
        rows: list[Numbered] = []
        for number, row in json_lines(Path(self.path), self.of_lines.of(self.path)):
            if not isinstance(row, dict) or not _is_id(row.get("qid")):
                got = repr(row.get("qid")) if isinstance(row, dict) else f"a {type(row).__name__}"
                where = f"{self.path}:{number}"
                self.of_lines.add(where, f"expected an object with a qid, a number or text, got {_short(got)}")
                continue
            rows.append((number, row))
        if not rows and not self.of_lines:
            self.of_lines.add(self.path, "no lines in this file", "is this the right file?")
        return rows

    def match(self, rows: list[Numbered], known: dict[Any, Record], partial: bool) -> list[Numbered]:
        """Return the first line of each known qid."""
        lines_of: dict[Any, list[int]] = defaultdict(list)
        first: list[Numbered] = []
        for number, row in rows:
            if row["qid"] not in lines_of and row["qid"] in known:
                first.append((number, row))
            lines_of[row["qid"]].append(number)
        repeated = {each: numbers for each, numbers in lines_of.items() if len(numbers) > 1}
        if repeated:
            named = [f"{each!r} (lines {', '.join(map(str, numbers))})" for each, numbers in repeated.items()]
            what = f"{_qids(len(repeated))} more than once: {_list(named)}"
            self.of_queries.add(self.path, what, "keep one line per query")
        unknown = [each for each in lines_of if each not in known]
        mistyped = {each: _other_type(each) for each in unknown if _other_type(each) in known}
        if mistyped:
            named = [f"{each!r} for {other!r}" for each, other in mistyped.items()]
            what = f"{_qids(len(mistyped))} of another type than in {self.truth}: {_list(named)}"
            self.of_queries.add(self.path, what, "write qids as the annotations do, as numbers or as text")
        unknown = [each for each in unknown if each not in mistyped]
        answered = {*lines_of, *mistyped.values()}
        missing = [each for each in known if each not in answered]
        if partial and not first and not mistyped and rows:
            what = f"no qid of its {len(rows)} lines is in {self.truth}: {_list(map(repr, unknown))}"
            self.of_queries.add(self.path, what, "give the annotations that the submission is for")
        elif partial and (unknown or missing):
            self.notes.append(
                f"partial: {_queries(len(first))} scored, {len(missing)} of "
                f"{len(known)} annotated ones not submitted, {len(unknown)} submitted ones not annotated"
            )
        elif not partial and rows:
            fix = "submit the queries of these annotations, or score the shared ones (--partial)"
            if missing:
                what = f"{len(missing)} of the {_qids(len(known))} of {self.truth} missing: {_list(map(repr, missing))}"
                self.of_queries.add(self.path, what, fix)
            if unknown:
                what = f"{_qids(len(unknown))} unknown to {self.truth}: {_list(map(repr, unknown))}"
                self.of_queries.add(self.path, what, fix)
        return first

    def check_queries(self, rows: Sequence[Numbered], records: Sequence[Record]) -> None:
        """Check that lines are about the videos and sentences of their qids, where they say it.

        qids are often line numbers, so that those of another file fit, too. A few sentences may have been corrected
        since; where most differ, the file answers other queries.
        """
        videos, sentences, said = [], [], 0
        for (number, row), record in zip(rows, records, strict=True):
            video, sentence = row.get("vid"), row.get("query")
            which = f"{row['qid']!r} (line {number}) has"
            if _is_id(video) and str(video) != record.video_id:
                videos.append(f"{which} {_short(repr(video))}, not {_short(repr(record.video_id))}")
            if isinstance(sentence, str) and sentence:
                said += 1
                if not same_words(sentence, record.sentence):
                    sentences.append(f"{which} {_short(repr(sentence))}, not {_short(repr(record.sentence))}")
        if videos:
            what = f"{_qids(len(videos))} of another video than in {self.truth}: {_list(videos)}"
            self.of_queries.add(self.path, what, "give the annotations that the submission is for")
        what = f"{_qids(len(sentences))} of another sentence than in {self.truth}: {_list(sentences)}"
        if 2 * len(sentences) > said:
            self.of_queries.add(self.path, what, "give the annotations that the submission is for")
        elif sentences:
            self.notes.append(f"{what}; they count all the same")

    def kinds(self, rows: list[Numbered], records: list[Record]) -> tuple[str, ...]:
        """Return which of windows and saliency can be scored: what all lines have, and all their annotations."""
        submitted = {kind: [number for number, row in rows if kind in row] for kind in (WINDOWS, SALIENCY)}
        annotated = {WINDOWS: [r for r in records if r.moments], SALIENCY: [r for r in records if r.saliency]}
        if rows and not any(submitted.values()):
            self.of_queries.add(self.path, f"no line has {WINDOWS} or {SALIENCY}", "write at least one of the two")
        kinds = []
        for kind, name in ((WINDOWS, "relevant_windows"), (SALIENCY, "relevant_clip_ids and saliency_scores")):
            numbers, labelled = submitted[kind], annotated[kind]
            if 0 < len(numbers) < len(rows):
                without = [number for number, row in rows if kind not in row]
                what = f"{len(numbers)} lines have {kind}, {len(without)} have not: lines {_list(without)}"
                self.of_queries.add(self.path, what, "write it on every line or on none")
            if 0 < len(labelled) < len(records) and numbers:
                has = {record.query_id for record in labelled}
                unlabelled = [repr(qid(record)) for record in records if record.query_id not in has]
                what = f"{_queries(len(unlabelled))} without {name}: {_list(unlabelled)}"
                self.of_queries.add(self.truth, what, "leave them out of the annotations and score with --partial")
            if numbers and labelled:
                kinds.append(kind)
            elif numbers:
                self.notes.append(f"{self.truth} has no {name}: {kind} is not scored")
        if records and any(submitted.values()) and not kinds:
            what = "holds no labels of what the submission predicts"
            self.of_queries.add(self.truth, what, "give annotations with labels")
        return tuple(kinds)

    def check_windows(self, rows: Iterable[Numbered], records: Sequence[Record]) -> None:
        """Check the windows of each line that has any."""
        many = unsorted = backwards = beyond = 0
        latest = 0.0
        for (number, row), record in zip(rows, records, strict=True):
            if WINDOWS not in row:
                continue
            windows = row[WINDOWS]
            if wrong := _wrong_windows(windows):
                fix = "write start and end in seconds and a score, for one window or more"
                self.of_lines.add(f"{self.path}:{number}", f"qid {row['qid']!r}: {wrong}", fix)
                continue
            many += len(windows) > RANKED
            unsorted += windows[0][2] < max(window[2] for window in windows[:RANKED])
            backwards += any(window[1] < window[0] for window in windows[:RANKED])
            beyond += any(window[0] > record.duration for window in windows[:RANKED])
            latest = max(latest, *(window[1] for window in windows))
        for count, note in (
            (many, f"with more than {RANKED} windows: the first {RANKED} count"),
            (unsorted, "whose first window has not the highest score: R1 is about the first"),
            (backwards, "with a window that ends before it starts: scored as the official script does"),
            (beyond, "with a window that starts after its video's end: are windows in seconds?"),
        ):
            if count:
                self.notes.append(f"{_queries(count)} {note}")
        if 0 < latest <= 1 and min(record.duration for record in records) > 2:
            self.notes.append("no window ends after the first second: they look like shares of the video, not seconds")

    def check_saliency(self, rows: Iterable[Numbered], records: Sequence[Record]) -> None:
        """Check the saliency of each line that has any, and the annotations' own."""
        off = 0
        for (number, row), record in zip(rows, records, strict=True):
            try:
                clips = len(_clip_scores(record))
            except ValueError as error:
                fix = f"saliency is {ANNOTATORS} scores for clips of {CLIP_LENGTH:g} s"
                self.of_queries.add(f"{self.truth}: query {record.query_id}", str(error), fix)
                continue
            if SALIENCY not in row:
                continue
            if wrong := _wrong_saliency(row[SALIENCY], clips):
                fix = f"score each clip of {CLIP_LENGTH:g} s, or leave {SALIENCY} out on all lines"
                self.of_lines.add(f"{self.path}:{number}", f"qid {row['qid']!r}: {wrong}", fix)
            else:
                off += len(row[SALIENCY]) != clips
        if off:
            what = f"whose saliency is up to {CLIPS_OFF} clips too short (zeros added) or too long (cut)"
            self.notes.append(f"{_queries(off)} {what}")


def _wrong_windows(windows: Any) -> str:
    if not isinstance(windows, list) or not windows:
        return f"{WINDOWS} must be one or more [start, end, score], got {_short(repr(windows))}"
    for index, window in enumerate(windows):
        if not isinstance(window, list) or len(window) != 3 or not _numbers(window):
            return f"window {index + 1} must be [start, end, score], got {_short(repr(window))}"
        if not _finite(window):
            return f"window {index + 1} must have finite numbers, got {_short(repr(window))}"
    return ""


def _wrong_saliency(scores: Any, clips: int) -> str:
    if not isinstance(scores, list) or not scores or not _numbers(scores):
        return f"{SALIENCY} must be a list of numbers, got {_short(repr(scores))}"
    if not _finite(scores):
        index = next(index for index, score in enumerate(scores) if not _finite([score]))
        return f"{SALIENCY} must be finite, got {_short(repr(scores[index]))} for clip {index}"
    if not clips:
        return f"the video is shorter than a clip of {CLIP_LENGTH:g} s"
    if abs(len(scores) - clips) > CLIPS_OFF:
        return f"{len(scores)} {SALIENCY} for a video of {clips} clips"
    return ""


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value == value


def _other_type(value: Any) -> Any:
    if isinstance(value, str):
        return int(value) if value.isdecimal() and value.isascii() else None
    return str(value)


def _numbers(values: list[Any]) -> bool:
    return set(map(type, values)) <= {int, float}


def _finite(values: list[Any]) -> bool:
    try:
        return all(map(math.isfinite, values))
    except OverflowError:  # an integer beyond float64
        return False


def _qids(count: int) -> str:
    return f"{count} qid{'s' * (count != 1)}"


def _queries(count: int) -> str:
    return f"{count} {'query' if count == 1 else 'queries'}"


def _list(items: Iterable[Any]) -> str:
    named = [item if isinstance(item, str) else repr(item) for item in items]
    return ", ".join(named[:10]) + (f" and {len(named) - 10} more" if len(named) > 10 else "")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
