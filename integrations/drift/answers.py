"""What a trained model answers to the queries of a set, and to what its reworded queries reword."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab.rewording import is_reworded, original_key, rewording_of
from hero_plugin.metrics import nearest_iou

__all__ = ["Answers", "Originals", "answers_of", "with_originals"]

Unseen = Callable[[Record], Sequence[str]]
"""The words of a query that training never had."""


@dataclass(frozen=True)
class Originals:
    """What is answered to the originals of P reworded queries."""

    rows: np.ndarray
    """(P,) where the reworded queries are among all of the set."""
    moments: np.ndarray
    """(P, 2) seconds."""
    ious: np.ndarray
    """(P,) overlaps with the annotation."""


@dataclass(frozen=True)
class Answers:
    """What one training answers to the Q annotated queries of a set."""

    records: Sequence[Record]
    unseen: Sequence[Sequence[str]]
    """Of each query: its words that the training never had."""
    moments: np.ndarray
    """(Q, 2) seconds, the best of each query."""
    ious: np.ndarray
    """(Q,) overlaps with the annotation, the nearest where a query has several moments."""
    originals: Originals | None = None

    @property
    def videos(self) -> list[str]:
        return [record.video_id for record in self.records]

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """What tells the queries apart, the same for every model."""
        return [(record.video_id, record.query_id, record.sentence) for record in self.records]

    @property
    def changes(self) -> list[str]:
        """Of each query: the kind of its rewording."""
        return [found.kind if (found := rewording_of(record)) else "not reworded" for record in self.records]

    @property
    def parts(self) -> list[str]:
        """Of each query: what its rewording changed, a person, a thing, an action or a circumstance; "" if unknown."""
        return [found.part if (found := rewording_of(record)) else "not reworded" for record in self.records]


def answers_of(records: Sequence[Record], moments: np.ndarray, unseen: Unseen) -> Answers:
    """Answers to those of the queries that are annotated.

    moments: (records, 2) seconds, the best of each query.
    """
    rows = [row for row, record in enumerate(records) if record.moments]
    kept = [records[row] for row in rows]
    found = np.asarray(moments, dtype=np.float64).reshape(-1, 2)[rows]
    return Answers(
        kept, [tuple(unseen(record)) for record in kept], found, nearest_iou(found, [record.moments for record in kept])
    )


def with_originals(answers: Answers, originals: Sequence[Record], moments: np.ndarray) -> Answers:
    """The same with what the model answers to the originals.

    originals: as of `vocab.rewording.original_records`; moments: (originals, 2) seconds.
    """
    known = {(record.video_id, record.query_id, record.sentence): row for row, record in enumerate(originals)}
    rows = [row for row, record in enumerate(answers.records) if is_reworded(record)]
    if not rows:
        return answers
    reworded = [answers.records[row] for row in rows]
    found = np.asarray(moments, dtype=np.float64)[[known[original_key(record)] for record in reworded]]
    pairs = Originals(np.asarray(rows), found, nearest_iou(found, [record.moments for record in reworded]))
    return Answers(answers.records, answers.unseen, answers.moments, answers.ious, pairs)
