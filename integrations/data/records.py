"""Records, which every annotation format is read into: a sentence, its video, its moments; and reworded ones.

A reworded query says what was changed, and carries a link to the original through annotation files.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One query of a temporal sentence grounding data set.

    Attributes:
        query_id: Unique within a file. Formats without ids get ``VIDEO_k``, k counting the video's sentences from 0.
        video_id: Name of the video, as in the file and in feature stores.
        sentence: The query, white space tidied (one blank between words, none around).
        moments: (start, end) in seconds, start < end; one for most data sets, several for QVHighlights, () for a
            query without labels.
        duration: Length of the video in seconds.
        split: Any name: "train", "test-ood", ...
        saliency: (clip index, annotators' scores), for QVHighlights and what is converted to it.
        extra: What the file carried and no field above holds, so that writing it back loses nothing.
            ``extra["video"]`` holds what belongs to the video rather than to the sentence.
    """

    query_id: str
    video_id: str
    sentence: str
    moments: tuple[tuple[float, float], ...]
    duration: float
    split: str = ""
    saliency: tuple[tuple[int, tuple[float, ...]], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> "Record":
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def clean_sentence(raw: str) -> str:
    """Tidy a sentence: its letters (see ``clean_text``), and white space, such as tabs and line breaks inside it."""
    return " ".join(clean_text(raw).split())


_HYPHENS = {0x2010: "-", 0x2011: "-", 0xAD: None}


def clean_text(text: str) -> str:
    """Compose letters with their accents (NFC), take typographic hyphens for plain ones, drop soft hyphens.

    Else words would be cut inside, and have no vector.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text).translate(_HYPHENS)


REWORDED = "reworded"
"""Key of ``Record.extra`` under which a reworded query links to the original: every format carries it along."""
_OF_ANOTHER_SENTENCE = ("encoded_sentences", "framestamps", "novels", "raw_sentence", "qid")
"""Extras that describe the original's words, or are made anew by the writers."""


@dataclass(frozen=True)
class Change:
    """One stretch of words that became another."""

    old: str
    new: str
    kind: str
    """"synonym", "hypernym" or "spelling" for one word, "phrase" for an expression of several, or "paraphrase"."""
    pos: str = ""
    """noun, verb or adjective, where one word was swapped for another."""
    part: str = ""
    """What the words are about: "person", "thing", "action", or "circumstance" (how, where, when); "" where unknown."""
    similarity: float | None = None
    """Cosine of the two words' vectors, or of the two sentences' for a paraphrase."""


@dataclass(frozen=True)
class Rewording:
    """Another wording of a query."""

    sentence: str
    changes: tuple[Change, ...]
    unseen: tuple[str, ...] = ()
    """Its words that the training vocabulary lacks."""
    source: str = ""
    """Where it came from, if there were several sources."""

    @property
    def kind(self) -> str:
        """Return the kind of its changes; "mixed" where they differ."""
        return _common(change.kind for change in self.changes)

    @property
    def part(self) -> str:
        """Return what its changes are about; "mixed" where they differ, "" where that is not known."""
        return _common(change.part for change in self.changes)

    def to_json(self) -> dict[str, Any]:
        """Return the rewording as JSON values."""
        changes = [{key: value for key, value in asdict(c).items() if value not in ("", None)} for c in self.changes]
        facts = {"sentence": self.sentence, "kind": self.kind, "unseen": list(self.unseen), "changes": changes}
        return {**facts, **{key: value for key, value in (("part", self.part), ("source", self.source)) if value}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Rewording":
        """Return the rewording that ``to_json`` described."""
        changes = tuple(Change(**change) for change in value["changes"])
        return cls(value["sentence"], changes, tuple(value["unseen"]), value.get("source", ""))


def _common(labels: Iterable[str]) -> str:
    """Return the one label that all have, or "mixed"."""
    found = set(labels)
    return found.pop() if len(found) == 1 else "mixed"


def reworded_record(original: Record, rewording: Rewording, number: int, source: str) -> Record:
    """Return the original's record with the new sentence: same video, same moments, and a link back in ``extra``.

    ``number`` distinguishes several rewordings of one query: the id is the original's with "~number" after it.
    ``source`` is where the wording came from.
    """
    facts = rewording.to_json()
    del facts["sentence"]
    identity = f"{original.query_id}~{number}"
    link = {"id": identity, "query": original.query_id, "sentence": original.sentence, **facts, "source": source}
    extra = {key: value for key, value in original.extra.items() if key not in _OF_ANOTHER_SENTENCE}
    return original.replace(query_id=identity, sentence=rewording.sentence, extra={**extra, REWORDED: link})


def is_reworded(record: Record) -> bool:
    """Return whether the record carries a link to the query that it rewords."""
    return isinstance(record.extra.get(REWORDED), dict)


def original_query(record: Record) -> str | None:
    """Return the id, in its own file, of the query that this one rewords."""
    return record.extra[REWORDED]["query"] if is_reworded(record) else None


def original_key(record: Record) -> tuple[str, str, str]:
    """Return what identifies the original of a reworded query: video, id and sentence. Files may repeat ids."""
    link = record.extra[REWORDED]
    return record.video_id, link["query"], link["sentence"]


def original_record(record: Record) -> Record:
    """Return the query that this one rewords, from its link: same video and moments; itself where it rewords none."""
    if not is_reworded(record):
        return record
    _, query, sentence = original_key(record)
    extra = {name: value for name, value in record.extra.items() if name != REWORDED}
    return record.replace(query_id=query, sentence=sentence, extra=extra)


def original_records(records: Iterable[Record]) -> list[Record]:
    """Return the queries that these reword, each once."""
    found: dict[tuple[str, str, str], Record] = {}
    for record in records:
        if is_reworded(record):
            found.setdefault(original_key(record), record)
    return [original_record(record) for record in found.values()]


def rewording_of(record: Record) -> Rewording | None:
    """Return what was changed, as the builder recorded it."""
    return Rewording.from_json({"sentence": record.sentence, **record.extra[REWORDED]}) if is_reworded(record) else None
