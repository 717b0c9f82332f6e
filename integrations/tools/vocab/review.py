"""Decisions of a reviewer about rewordings."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from hero_plugin.integrations.data.records import REWORDED, Record, original_record, reworded_record
from hero_plugin.integrations.support.errors import UserError, not_utf8
from hero_plugin.integrations.support.files import write_text
from hero_plugin.integrations.tools.vocab.english import Tagger, make_query
from hero_plugin.integrations.tools.vocab.filters import Filter, UnseenFilter, first_reason
from hero_plugin.integrations.tools.vocab.sources import paraphrase

# Review page: one HTML file that contains the rewordings, loads no other file and sends nothing.


def review_page(records: Sequence[Record], file: str, checksum: str) -> str:
    """Return the HTML page for reworded records.

    Args:
        records: the records.
        file: name of their file.
        checksum: SHA-256 of their file, under which the browser keeps decisions.
    """
    items = [_shown(record) for record in records if REWORDED in record.extra]
    data = json.dumps({"file": file, "sha256": checksum, "items": items}, ensure_ascii=False, separators=(",", ":"))
    template = (resources.files(__package__) / "review.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", data.replace("<", "\\u003c"), 1)  # "</script>" in a query must end nothing


def _shown(record: Record) -> dict[str, object]:
    link = record.extra[REWORDED]
    return {
        "id": link["id"],
        "video": record.video_id,
        "moment": [list(moment) for moment in record.moments],
        "original": link["sentence"],
        "reworded": record.sentence,
        "kind": link["kind"],
        "part": link.get("part", ""),
        "unseen": link["unseen"],
        "changes": [{"old": change["old"], "new": change["new"]} for change in link["changes"]],
        "source": link["source"],
    }


Undecided = Literal["keep", "drop"]


@dataclass(frozen=True)
class Decision:
    """Decision about one rewording.

    Attributes:
        verdict: ``accept``, ``reject`` or ``edit``.
        sentence: what the reviewer made of it.
    """

    verdict: str
    sentence: str = ""


def load_decisions(path: Path) -> dict[str, Decision]:
    """Load what the review page exports: ``{"decisions": {id: {"verdict", "sentence"}}}``.

    Raises:
        UserError: the file has another form.
    """
    shape = 'expected {"decisions": {ID: {"verdict": "accept", "reject" or "edit", "sentence": TEXT}}}'
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))["decisions"]
        found = {key: Decision(value["verdict"], value.get("sentence", "")) for key, value in raw.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no decisions ({error}); {shape}, as the review page exports") from error
    for key, decision in found.items():
        if decision.verdict not in ("accept", "reject", "edit") or (
            decision.verdict == "edit" and not decision.sentence
        ):
            raise UserError(f"{path}: {key}: {decision}; {shape}")
    return found


def apply_decisions(
    built: Sequence[Record],
    decisions: Mapping[str, Decision],
    filters: Sequence[Filter],
    unseen: UnseenFilter,
    tagger: Tagger,
    undecided: Undecided = "keep",
    originals: Sequence[Record] = (),
) -> tuple[list[Record], Counter[str], list[str]]:
    """Apply decisions to built records.

    Edited sentences must pass the filters like any paraphrase. Records without a link to an original stay as they are.

    Args:
        built: the records.
        decisions: by the rewording's id.
        filters: what an edit must pass.
        unseen: finds the unseen words of an edit.
        tagger: tags the queries.
        undecided: ``keep`` or ``drop`` rewordings without a decision.
        originals: all queries of the file that was reworded, if at hand; an edit must not say what another one says.

    Returns:
        The records that stay, counts of what happened, and each edit that a filter turned down, with the reason.
    """
    kept: list[Record] = []
    counts: Counter[str] = Counter(accepted=0, edited=0, rejected=0, undecided=0, edits_turned_down=0)
    complaints: list[str] = []
    by_video: dict[str, list[Record]] = {}
    for record in originals or map(original_record, built):
        by_video.setdefault(record.video_id, []).append(record)
    for record in built:
        if REWORDED not in record.extra:
            kept.append(record)
            continue
        link = record.extra[REWORDED]
        decision = decisions.get(link["id"])
        if decision is None:
            counts["undecided"] += 1
            if undecided == "keep":
                kept.append(record)
        elif decision.verdict == "reject":
            counts["rejected"] += 1
        elif decision.verdict == "accept":
            counts["accepted"] += 1
            kept.append(record)
        else:
            original = original_record(record)
            query = make_query(original, by_video[record.video_id], tagger)
            edited = paraphrase(query, decision.sentence)
            why = first_reason(filters, query, edited) if edited else ("edit", "it is the original sentence")
            if edited is None or why is not None:
                counts["edits_turned_down"] += 1
                complaints.append(f"{link['id']}: {decision.sentence!r}: {why[0]}: {why[1]}" if why else link["id"])
                continue
            counts["edited"] += 1
            finished = type(edited)(edited.sentence, edited.changes, unseen.words(edited.sentence))
            number = int(link["id"].rpartition("~")[2])
            again = reworded_record(original, finished, number, f"{link['source']}, edited")
            kept.append(again.replace(query_id=record.query_id))
    unknown = set(decisions) - {record.extra[REWORDED]["id"] for record in built if REWORDED in record.extra}
    if unknown:
        first = ", ".join(sorted(unknown)[:3])
        raise UserError(f"{len(unknown)} decisions are about rewordings that are not in this file, such as {first}")
    return kept, counts, complaints


# Sample of rewordings to read, and the builder's error rate from its labels.


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
