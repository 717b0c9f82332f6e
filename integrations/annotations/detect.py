"""Detection of a file's annotation format from its content."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from hero_plugin.integrations.problems import DataError, Problem

__all__ = ["FORMATS", "Format", "detect_format", "format_name"]

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
"""The names that commands take."""
FORMATS = ("charades-sta", "charades-cd", "captions", "qvhighlights")
_ALIASES = {
    "charades-cg": "captions",
    "activitynet": "captions",
    "activitynet-cd": "captions",
    "activitynet-captions": "captions",
    "moment-detr": "qvhighlights",
    "lighthouse": "qvhighlights",
}
_LINE = re.compile(r"^\S+\s+\S+\s+\S+##")


def format_name(name: str) -> str:
    """Return the canonical name of a format; raise ``ValueError`` for an unknown one."""
    known = _ALIASES.get(name, name)
    if known not in FORMATS:
        raise ValueError(f"format must be one of {', '.join((*FORMATS, *_ALIASES))}, got {name!r}")
    return known


def detect_format(path: Path) -> str:
    """Detect the format of a file by its content, not by its name.

    Raises:
        DataError: It looks like none of the known formats.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        head = stream.read(1 << 16)
    text = head.lstrip()
    if text.startswith("{"):
        first = text.split("\n", 1)[0]
        if re.match(r'\{\s*"(?:qid|query|vid|duration|relevant_\w+|saliency_scores)"\s*:', first):
            return "qvhighlights"
        try:
            row = json.loads(first)
        except json.JSONDecodeError:
            row = None  # one object over many lines, or a line longer than the head
        if isinstance(row, dict) and "query" in row and "vid" in row:
            return "qvhighlights"
        return "charades-cd" if '"video_duration"' in head or '"framestamps"' in head else "captions"
    if any(_LINE.match(line) for line in text.split("\n")[:100]):
        return "charades-sta"
    what = f"cannot tell its format; it begins {text[:60]!r}" if text else "an empty file"
    fix = f"name it with format=... (--from), one of {', '.join(FORMATS)}"
    raise DataError([Problem(str(path), what, fix)])
