"""Sources of rewordings: their interface, and those that propose whole sentences."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Protocol

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.records import clean_sentence
from hero_plugin.integrations.vocab.query import TaggedQuery
from hero_plugin.integrations.vocab.rewording import Change, Rewording
from hero_plugin.integrations.words import tokenize

__all__ = ["CombinedSource", "Paraphrases", "Source", "differences", "paraphrase"]


class Source(Protocol):
    """A proposer of rewordings, which filters judge. The same query must get the same proposals every time."""

    name: str

    def propose(self, query: TaggedQuery) -> Iterable[Rewording]:
        """Return rewordings of a query."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""


class CombinedSource:
    """Several sources as one; each rewording names the source that it came from."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.name = ", ".join(source.name for source in sources)
        self.jobs = max(getattr(source, "jobs", 1) for source in sources)

    def propose(self, query: TaggedQuery) -> Iterator[Rewording]:
        """Iterate over the rewordings of every source."""
        for source in self._sources:
            for rewording in source.propose(query):
                yield replace(rewording, source=source.name)

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"kind": "several", "sources": [source.describe() for source in self._sources]}


def paraphrase(query: TaggedQuery, sentence: str) -> Rewording | None:
    """Return a new sentence as a rewording, None if it says nothing new."""
    sentence = clean_sentence(sentence)
    changes = differences(query.sentence, sentence)
    return Rewording(sentence, changes) if sentence and changes else None


def differences(old: str, new: str) -> tuple[Change, ...]:
    """Return the stretches of words in which two sentences differ."""
    before, after = tokenize(old), tokenize(new)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    return tuple(
        Change(" ".join(before[a:b]), " ".join(after[c:d]), "paraphrase")
        for what, a, b, c, d in matcher.get_opcodes()
        if what != "equal"
    )


class Paraphrases:
    """A file of ready paraphrases, one per line.

    JSON ``{"query": ID, "sentence": NEW}`` or ``{"original": TEXT, "sentence": NEW}``, or tab-separated: the original
    sentence or the query's id, then the new sentence.
    """

    name = "paraphrases"

    def __init__(self, path: Path, checksum: str) -> None:
        self._file, self._checksum = path.name, checksum
        self._known: dict[str, list[str]] = defaultdict(list)
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                key, sentence = _pair(path, number, line)
                self._known[clean_sentence(key).lower()].append(sentence)

    def propose(self, query: TaggedQuery) -> Iterator[Rewording]:
        """Iterate over the paraphrases of a query."""
        keys = (query.record.query_id.lower(), query.sentence.lower())
        for sentence in dict.fromkeys(s for key in keys for s in self._known.get(key, ())):
            if (found := paraphrase(query, sentence)) is not None:
                yield found

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"kind": "paraphrases", "file": self._file, "sha256": self._checksum}


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    expected = (
        'expected {"query": ID, "sentence": TEXT}, {"original": TEXT, "sentence": TEXT}, or ID or TEXT, tab, TEXT'
    )
    if line.lstrip().startswith("{"):
        try:
            row = json.loads(line)
            return str(row["query"] if "query" in row else row["original"]), str(row["sentence"])
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}:{number}: {error}; {expected}") from error
    key, tab, sentence = line.partition("\t")
    if not tab or not sentence.strip():
        raise UserError(f"{path}:{number}: cannot be read: {line[:60]!r}; {expected}")
    return key, sentence
