"""Decisions of a reviewer about rewordings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.records import REWORDED, Record
from hero_plugin.integrations.vocab.filters import Filter, UnseenFilter, first_reason
from hero_plugin.integrations.vocab.query import make_query
from hero_plugin.integrations.vocab.rewording import original_record, reworded_record
from hero_plugin.integrations.vocab.sources import paraphrase
from hero_plugin.integrations.vocab.tagging import Tagger

__all__ = ["Decision", "Undecided", "apply_decisions", "load_decisions"]

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
