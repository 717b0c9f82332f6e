"""Readers and writers of the annotation formats: Charades-STA text, JSON by video, QVHighlights' JSONL.

A reader adds the records of a file to its ``checks``. What a record has no field for is kept in ``Record.extra``, and
the writer of the same format puts it back.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hero_plugin.integrations.data.checks import (
    HOW_TO_GIVE_DURATIONS,
    RecordChecks,
    as_number,
    json_lines,
    numbered_lines,
)
from hero_plugin.integrations.data.records import REWORDED, Record, clean_sentence, is_reworded
from hero_plugin.integrations.support.errors import DataError, Problem, Problems
from hero_plugin.integrations.support.files import OnProgress, atomic_write


def _without_one_moment(records: Sequence[Record], path: Path) -> Problems:
    """Return a problem for each record that has no moment, or several."""
    problems = Problems()
    for record in records:
        if len(record.moments) != 1:
            problems.add(
                f"{path}: query {record.query_id} of video {record.video_id}",
                f"this format holds one moment per query, the record has {len(record.moments)}",
                'choose what becomes of several windows: --windows "first", "longest", "hull" or "split"'
                if record.moments
                else "queries without labels can only be written as QVHighlights JSONL",
            )
    return problems


def raw_sentence(record: Record) -> str:
    """Return the sentence as its file had it, unless it has been changed since."""
    raw = record.extra.get("raw_sentence")
    return raw if isinstance(raw, str) and clean_sentence(raw) == record.sentence else record.sentence


def tidy_number(value: Any) -> Any:
    """Return 72 for 72.0, as QVHighlights and ActivityNet Captions write whole seconds."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_charades_sta(checks: RecordChecks, progress: OnProgress | None = None) -> None:
    """Read lines ``VIDEO START END##sentence`` in seconds, which hold no durations."""
    if checks.durations is None:
        checks.failure("", "Charades-STA text holds no video durations", HOW_TO_GIVE_DURATIONS)
    count: Counter[str] = Counter()
    unknown: set[str] = set()
    for number, line in numbered_lines(checks.path, checks.problem, progress):
        where = f":{number}"
        head, mark, raw = line.partition("##")
        fields = head.split()
        if not mark or len(fields) != 3:
            what = f"expected `VIDEO START END##sentence`, got {line[:80]!r}"
            checks.problem(where, what, "correct or delete the line")
            continue
        video = fields[0]
        position = count[video]
        count[video] += 1
        checks.ids.append(f"{video}_{position}")
        sentence = checks.sentence(where, raw)
        duration = checks.known_duration(video)
        if duration is None:
            if checks.durations is not None and video not in unknown:
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
    problems = _without_one_moment(records, path)
    for record in records:
        if "##" in record.video_id or not record.video_id or record.video_id.split() != [record.video_id]:
            problems.add(f"{path}: video {record.video_id!r}", "this name cannot stand in such a line", "rename it")
    problems.raise_if_any()
    with atomic_write(path) as stream:
        for record in records:
            start, end = map(float, record.moments[0])
            raw = raw_sentence(record)
            sentence = clean_sentence(raw) if raw == record.sentence or "\n" in raw or "\r" in raw else raw
            stream.write(f"{record.video_id} {start!r} {end!r}##{sentence}\n")


AS_JSONL = "write it as JSON lines: qid, query, duration, vid, relevant_windows"
EXACT_TIMES = "exact_times"
_ENTRY_KEYS = ("sentences", "timestamps", "duration", "video_duration", EXACT_TIMES)
FRAMES = ("fps", "num_frames")
"""What TACoS has in place of a duration, as EMB's authors and 2D-TAN's ship it; its timestamps are then frames."""


def read_by_video(checks: RecordChecks, progress: OnProgress | None = None) -> None:
    """Read JSON that maps each video to its sentences and timestamps, as ActivityNet Captions and its successors.

    ``{VIDEO: {"duration" or "video_duration": seconds, "sentences": [...], "timestamps": [[start, end], ...], ...}}``.
    With ``fps`` and ``num_frames`` in place of a duration (TACoS), timestamps are frames, and become seconds here.
    With ``exact_times`` (VSLNet's form of Ego4D's NLQ), these are the seconds, and timestamps count features.
    ``annotations``, a list of ``segment`` and ``sentence`` (SnAG), and ``{QUERY: {"movie", "sentence", ...}}`` (MAD)
    are read, too. Any other list as long as ``sentences`` belongs to the sentences (``novels``), anything else to the
    video (``decode_fps``).
    """
    data = load_by_video(checks, progress)
    if isinstance(data.get("database"), dict):
        data = data["database"]
        subsets = {str(entry.get("subset")) for entry in data.values() if isinstance(entry, dict)}
        if len(subsets) > 1:
            fix = "write each to a file of its own: read together, training would see the test set"
            checks.failure("", f"it holds several subsets: {', '.join(sorted(subsets))}", fix)
            return
    if data and all(isinstance(entry, dict) and "movie" in entry for entry in data.values()):
        for number, (query, row) in enumerate(data.items(), 1):
            _read_row(checks, f": query {query}", number, {"qid": query, **row})
        return
    data = {video: _with_lists(entry) for video, entry in data.items()}
    if data and not any(_is_entry(entry) for entry in data.values()):
        first = next(iter(data.values()))
        has = f"; the first has {', '.join(first)}" if isinstance(first, dict) else ""
        what = f"none of its {len(data)} entries has lists `sentences` and `timestamps`{has}"
        checks.failure("", what, f"is this an annotation file, and the right format? Else {AS_JSONL}")
        return
    for video, entry in data.items():
        where = f": video {video}"
        if not _is_entry(entry):
            checks.problem(where, "expected lists `sentences` and `timestamps`", "correct or remove the entry")
            continue
        sentences, timestamps = entry["sentences"], entry.get(EXACT_TIMES, entry["timestamps"])
        checks.ids += [f"{video}_{position}" for position in range(len(sentences))]
        if len(sentences) != len(timestamps):
            what = f"{len(sentences)} sentences but {len(timestamps)} timestamps"
            checks.problem(where, what, "correct or remove the entry")
            continue
        raw_duration = entry.get("duration", entry.get("video_duration"))
        fps, frames = (as_number(entry.get(key)) for key in FRAMES)
        in_frames = False
        if raw_duration is None and fps and frames and fps > 0:
            in_frames = True
            raw_duration = frames / fps
            timestamps = [_seconds(moment, fps) for moment in timestamps]
        elif raw_duration is None:
            raw_duration = checks.known_duration(video)
        if raw_duration is None:
            checks.failure(
                where,
                "no `duration` or `video_duration`",
                "add it, or give --durations FILE (in Python durations=FILE)",
            )
            continue
        duration = checks.duration(where, raw_duration)
        if duration is None:
            continue
        skipped = (*_ENTRY_KEYS, *FRAMES) if in_frames else _ENTRY_KEYS
        more = {key: value for key, value in entry.items() if key not in skipped}
        listed = {key: value for key, value in more.items() if isinstance(value, list) and len(value) == len(sentences)}
        whole = {key: value for key, value in more.items() if key not in listed}
        for position, raw in enumerate(sentences):
            spot = f"{where}, sentence {position + 1}"
            sentence = checks.sentence(spot, raw)
            moment = checks.moment(spot, timestamps[position], duration)
            if sentence is None or moment is None:
                continue
            extra: dict[str, Any] = {key: values[position] for key, values in listed.items()}
            if REWORDED in extra and extra[REWORDED] is None:
                del extra[REWORDED]  # an original beside a rewording of its video
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


def _seconds(moment: Any, fps: float) -> Any:
    """Return a moment in frames as seconds; what is no moment as it is, for the checks to name."""
    values = [as_number(value) for value in moment] if isinstance(moment, list | tuple) else []
    return moment if not values or None in values else [value / fps for value in values if value is not None]


def _with_lists(entry: Any) -> Any:
    """Return an entry whose sentences are in a list of ``segment`` and ``sentence`` as one with two lists."""
    parts = entry.get("annotations") if isinstance(entry, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) and "sentence" in part for part in parts):
        return entry
    rest = {key: value for key, value in entry.items() if key != "annotations"}
    fps, frames = (as_number(entry.get(key)) for key in FRAMES)
    if fps and frames and not {"duration", "video_duration"} & set(entry):
        rest["duration"] = frames / fps  # its segments are seconds all the same
    return {**rest, "sentences": [part["sentence"] for part in parts], "timestamps": [p.get("segment") for p in parts]}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), list) for key in ("sentences", "timestamps"))


def load_by_video(checks: RecordChecks, progress: OnProgress | None = None) -> dict[str, Any]:
    """Load the JSON object; names that occur twice become problems of ``checks``."""
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)  # which keeps the last of two entries of one name, and says nothing
        if len(found) != len(items):
            names = [name for name, _ in items]
            twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return found

    data = load_json(checks, progress, pairs)
    if not isinstance(data, dict):
        what = f"expected a JSON object of videos, got a {type(data).__name__}"
        raise DataError([Problem(str(checks.path), what, "is this the right file and format?")])
    for name in twice:
        checks.failure(f": {name}", "occurs twice in one JSON object", "merge or rename the entries")
    return data


def load_json(checks: RecordChecks, progress: OnProgress | None, pairs: Callable[[Any], Any] | None = None) -> Any:
    """Load a JSON file, or raise ``DataError`` that says what is wrong with it."""
    try:
        content = json.loads(checks.path.read_text(encoding="utf-8-sig"), object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        fix = "the file may be truncated: copy or download it again"
        raise DataError([Problem(f"{checks.path}:{error.lineno}", f"not JSON ({error.msg})", fix)]) from error
    except UnicodeDecodeError as error:
        raise DataError([Problem(str(checks.path), f"not UTF-8 text ({error.reason})", "save it as UTF-8")]) from error
    if progress is not None:
        progress(size := checks.path.stat().st_size, size)
    return content


def frames_of(moment: Sequence[Any], fps: Any) -> list[int] | None:
    """Return the frames of a moment at ``fps``, rounded down, as Charades-CD numbers them."""
    rate = as_number(fps)
    return None if rate is None else [math.floor(float(value) * rate) for value in moment]


def _write_by_video(
    records: Sequence[Record], path: Path, make_entry: Callable[[list[Record]], dict[str, Any]]
) -> None:
    """Write ``{VIDEO: entry}`` in the order of the videos' first records, which must agree about durations."""
    problems = _without_one_moment(records, path)
    grouped: dict[str, list[Record]] = {}
    for record in records:
        group = grouped.setdefault(record.video_id, [])
        group.append(record)
        if group[0].duration != record.duration:
            what = f"records give durations {group[0].duration:g} and {record.duration:g} s"
            problems.add(f"{path}: video {record.video_id}", what, "one video has one duration: correct them")
    problems.raise_if_any()
    with atomic_write(path) as stream:
        json.dump({video: make_entry(group) for video, group in grouped.items()}, stream)


def _listed_extras(group: Sequence[Record], skip: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return the extras that every sentence of a video has, as the lists that they came from.

    Links of rewordings are written where any has one, with null for the originals beside them.
    """
    reserved = {"video", "raw_sentence", *skip}
    keys = [key for key in group[0].extra if key not in reserved]
    found = {key: [r.extra[key] for r in group] for key in keys if all(key in r.extra for r in group)}
    if any(map(is_reworded, group)):
        found[REWORDED] = [r.extra.get(REWORDED) for r in group]
    return found


def write_captions(records: Sequence[Record], path: Path) -> None:
    """Write ActivityNet Captions' JSON, also the form of ActivityNet-CD and Charades-CG.

    ``{VIDEO: {duration, timestamps, sentences, ...}}`` has no place for query ids, splits and saliency.
    """

    def entry(group: list[Record]) -> dict[str, Any]:
        return {
            "duration": group[0].duration,
            "timestamps": [[tidy_number(time) for time in record.moments[0]] for record in group],
            "sentences": [raw_sentence(record) for record in group],
            **_listed_extras(group),
            **group[0].extra.get("video", {}),
        }

    _write_by_video(records, path, entry)


def write_charades_cd(records: Sequence[Record], path: Path) -> None:
    """Write Charades-CD's JSON: captions with ``video_duration``, frame numbers and word numbers.

    ``framestamps`` are made from the moments, ``encoded_sentences`` written only where known.
    """

    def entry(group: list[Record]) -> dict[str, Any]:
        video = dict(group[0].extra.get("video", {}))
        fps = video.pop("decode_fps", 16.0)  # that of every video of Charades-CD
        frames = [record.extra.get("framestamps") or frames_of(record.moments[0], fps) for record in group]
        listed = _listed_extras(group, skip=("framestamps",))
        encoded = {key: listed.pop(key) for key in ("encoded_sentences",) if key in listed}
        return {
            "framestamps": frames,
            "decode_fps": fps,
            **encoded,
            "sentences": [raw_sentence(record) for record in group],
            "video_fps": video.pop("video_fps", -1.0),
            "timestamps": [[float(time) for time in record.moments[0]] for record in group],
            "video_duration": group[0].duration,
            **listed,
            **video,
        }

    _write_by_video(records, path, entry)


_LINE_KEYS = ("qid", "query", "duration", "vid", "relevant_clip_ids", "saliency_scores", "relevant_windows")


def read_qvhighlights(checks: RecordChecks, progress: OnProgress | None = None) -> None:
    """Read QVHighlights' JSONL, the input of Moment-DETR, its descendants and lighthouse: one JSON object per line.

    ``{"qid", "query", "duration", "vid", "relevant_windows": [[s, e], ...], "relevant_clip_ids": [...],
    "saliency_scores": [[a, b, c], ...]}``. Test files end after ``vid``; Charades-STA and more in this form have
    windows and no saliency.
    """
    for number, row in json_lines(checks.path, checks.problem, progress):
        _read_row(checks, f":{number}", number, row)


def read_json_array(checks: RecordChecks, progress: OnProgress | None = None) -> None:
    """Read one JSON array: of QVHighlights' objects, or of ``[video, duration, [start, end], sentence]``."""
    rows = load_json(checks, progress)
    for number, row in enumerate(rows, 1):
        where = f": item {number}"
        if isinstance(row, dict):
            _read_row(checks, where, number, row)
        elif isinstance(row, list) and len(row) >= 4:  # more, such as the words, are made of the sentence
            video, duration, moment, sentence = row[:4]
            named = {"vid": video, "duration": duration, "relevant_windows": [moment], "query": sentence}
            _read_row(checks, where, number, named)
        else:
            what = f"expected an object, or [video, duration, [start, end], sentence], got {str(row)[:80]}"
            checks.problem(where, what, "correct or remove the item")


_OTHER_ROWS = (
    {"vid": "vid_name", "query": "desc", "relevant_windows": "ts", "qid": "desc_id"},  # TVR
    {"vid": "movie", "query": "sentence", "relevant_windows": "timestamps", "duration": "movie_duration"},  # MAD
    {"vid": "clip_id", "query": "query", "relevant_windows": "timestamps", "qid": "query_id"},  # CONE: Ego4D's NLQ
    {"vid": "video_id", "query": "query", "relevant_windows": "timestamps", "qid": "query_id"},  # CONE: MAD
)
"""What data sets of one moment per query call what QVHighlights calls otherwise."""


def renamed(row: Any) -> Any:
    """Return an object of ``_OTHER_ROWS`` under QVHighlights' names; any other as it is."""
    if not isinstance(row, dict) or "vid" in row:
        return row
    names = next((names for names in _OTHER_ROWS if all(name in row for name in names.values())), {})
    found = {here: row[there] for here, there in names.items()}
    if names:
        found["relevant_windows"] = [found["relevant_windows"]]
    return {**{key: value for key, value in row.items() if key not in names.values()}, **found}


def _read_row(checks: RecordChecks, where: str, number: int, row: Any) -> None:
    """Read one object of QVHighlights' form; ``number`` is its id where it has none."""
    row = renamed(row)
    missing = [key for key in ("query", "vid") if not isinstance(row, dict) or key not in row]
    if missing:
        has = f"; it has {', '.join(row)}" if isinstance(row, dict) else ""
        what = f"expected an object with {' and '.join(missing)}{has}"
        checks.problem(where, what, f"correct or delete the line; if all are like this, {AS_JSONL}")
        return
    if isinstance(row.get("label"), list) and "relevant_windows" not in row:
        if not checks.fatal:  # once, not for every line
            what = (
                "labels per clip and no windows, as TVSum and YouTube Highlights have: their top-5 mAP is not computed"
            )
            checks.failure(where, what, "use lighthouse's evaluation for highlights, or give `relevant_windows`")
        return
    video, given = str(row["vid"]), row.get("qid", row.get("query_id", number - 1))
    checks.ids.append(given if isinstance(given, int | str) else str(given))
    raw_duration = row.get("duration", checks.known_duration(video))
    if raw_duration is None:
        fix = "add it, or give --durations FILE (in Python durations=FILE)"
        checks.failure(where, f"no `duration` of video {video}", fix)
        return
    sentence, duration = checks.sentence(where, row["query"]), checks.duration(where, raw_duration)
    if sentence is None or duration is None:
        return
    windows = row.get("relevant_windows")
    moments = () if windows is None else checks.moments(where, windows, duration)
    saliency = _saliency(where, row.get("relevant_clip_ids"), row.get("saliency_scores"), checks)
    if moments is None or saliency is None:
        return
    extra = {key: value for key, value in row.items() if key not in _LINE_KEYS or value is None}
    if sentence != row["query"]:
        extra["raw_sentence"] = row["query"]
    query = str(given)
    if isinstance(given, str) and _number(query) is not None:
        extra["qid"] = query  # "12" and 12 are different ids to code that compares them later
    checks.keep(where, Record(query, video, sentence, moments, duration, checks.split, saliency, extra))


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
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and str(int(text)) == text else None
