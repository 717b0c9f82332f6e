"""Sample of rewordings to read, and the builder's error rate from its labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_text
from hero_plugin.integrations.problems import not_utf8
from hero_plugin.integrations.records import REWORDED, Record

__all__ = ["ERRORS", "LABELS", "draw_sample", "read_labels", "wilson_interval", "write_sample"]

LABELS = ("ok", "agreement", "sense", "no word", "meaning", "odd")
"""ok; wrong agreement; wrong sense; not a word; changed meaning; odd but understandable."""
ERRORS = ("agreement", "sense", "no word", "meaning")
_HEAD = "label\tid\tchange\toriginal\treworded"


def draw_sample(records: Sequence[Record], number: int, seed: int) -> list[Record]:
    """Return ``number`` rewordings drawn by a seed, in the order drawn; all of them if there are fewer."""
    reworded = [record for record in records if REWORDED in record.extra]
    if not reworded:
        raise UserError("no rewordings here: expected a file of `hero-plugin vocab build`")

    def draw(record: Record) -> bytes:
        return hashlib.sha256(f"{seed}:{record.extra[REWORDED]['id']}".encode()).digest()

    return sorted(reworded, key=draw)[:number]


def write_sample(sample: Sequence[Record], path: Path) -> None:
    """Write tab-separated lines with an empty first column for the label."""
    lines = [f"# write a label in the first column: {', '.join(LABELS)}", _HEAD]
    for record in sample:
        link = record.extra[REWORDED]
        changes = "; ".join(f"{change['old']} -> {change['new']}" for change in link["changes"])
        lines.append("\t".join(("", link["id"], changes, link["sentence"], record.sentence)))
    write_text(path, "\n".join(lines) + "\n")


def read_labels(path: Path) -> Counter[str]:
    """Return the labels of a sample that somebody has read.

    Raises:
        UserError: a label is missing or unknown, or the file is not UTF-8.
    """
    counts: Counter[str] = Counter()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {not_utf8(error)}: save it as UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or line == _HEAD or not line.strip():
            continue
        label = line.partition("\t")[0].strip()
        if label not in LABELS:
            raise UserError(f"{path}:{number}: the label must be one of {', '.join(LABELS)}, got {label!r}")
        counts[label] += 1
    if not counts:
        raise UserError(f"{path} holds no labels")
    return counts


def wilson_interval(successes: int, number: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share.

    >>> tuple(round(x, 3) for x in wilson_interval(10, 200))
    (0.027, 0.09)
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, number).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
