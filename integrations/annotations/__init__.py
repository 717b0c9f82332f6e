"""Annotation files of temporal sentence grounding: read any format into records, write records in any format."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hero_plugin.integrations.annotations.by_video import read_by_video
from hero_plugin.integrations.annotations.captions import write_captions
from hero_plugin.integrations.annotations.charades_cd import write_charades_cd
from hero_plugin.integrations.annotations.charades_sta import read_charades_sta, write_charades_sta
from hero_plugin.integrations.annotations.checks import OnBroken, OnOutside, OnProgress, ReadReport, RecordChecks
from hero_plugin.integrations.annotations.conversion import convert_records
from hero_plugin.integrations.annotations.detect import FORMATS, detect_format, format_name
from hero_plugin.integrations.annotations.durations import Durations, load_durations
from hero_plugin.integrations.annotations.qvhighlights import read_qvhighlights, write_qvhighlights
from hero_plugin.integrations.problems import DataError, Problem
from hero_plugin.integrations.records import Record

__all__ = [
    "FORMATS",
    "ReadReport",
    "convert_records",
    "detect_format",
    "load_durations",
    "read_annotations",
    "write_annotations",
]

READERS: Mapping[str, Callable[..., None]] = {
    "charades-sta": read_charades_sta,
    "charades-cd": read_by_video,
    "captions": read_by_video,
    "qvhighlights": read_qvhighlights,
}
_WRITERS: Mapping[str, Callable[[Sequence[Record], Path], None]] = {
    "charades-sta": write_charades_sta,
    "charades-cd": write_charades_cd,
    "captions": write_captions,
    "qvhighlights": write_qvhighlights,
}


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
            "qvhighlights" (also "lighthouse", "moment-detr"), or "auto": detected from the content.
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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file at {path}")
    checks = RecordChecks(path, on_outside, on_broken, split, unique_ids=unique_ids)
    known = detect_format(path) if format == "auto" else format_name(format)
    READERS[known](path, checks, None if durations is None else load_durations(durations), progress)
    if report is not None:
        report.format = known
    return checks.finish(report)


def write_annotations(records: Sequence[Record], path: str | os.PathLike[str], *, format: str) -> None:
    """Write records as ``format`` (names as in ``read_annotations``); the file appears whole or not at all.

    What a format has no place for is left out: ids and durations in Charades-STA text, ids in captions.

    Raises:
        DataError: A record cannot be written at all, such as several moments in a format of one.
    """
    known = format_name(format)
    path = Path(path)
    if not records:
        raise DataError([Problem(str(path), "no records to write", "check what was read or left out")])
    _WRITERS[known](list(records), path)
