"""Thesaurus: words of similar meaning, from a lexicon file or from WordNet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.vocab.english import lemma, lemmas
from hero_plugin.integrations.vocab.wordnet import WordNet

__all__ = ["LexiconThesaurus", "Thesaurus", "ThesaurusEntry", "WordNetThesaurus"]


@dataclass(frozen=True)
class ThesaurusEntry:
    """A word that may replace another."""

    lemma: str
    relation: str
    """ "synonym" or "hypernym"."""
    rank: int
    """Which sense of the word it belongs to, 0 the commonest."""


class Thesaurus(Protocol):
    """Words of similar meaning."""

    name: str

    def lookup(self, word: str, base: str, pos: str) -> Sequence[ThesaurusEntry]:
        """Return the entries of a word.

        Args:
            word: the form in the query.
            base: its lemma.
            pos: n, v or a.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        ...


class LexiconThesaurus:
    """Thesaurus in a JSON file: word -> [{"word", "relation", "sense", "pos"}, ...], in the form of the key."""

    def __init__(self, path: Path, checksum: str) -> None:
        self.name, self._checksum = path.name, checksum
        try:
            self._entries = json.loads(path.read_text(encoding="utf-8"))
            sample = next(iter(self._entries.values()))[0]
            sample["word"], sample["relation"], sample["sense"], sample["pos"]
        except (OSError, ValueError, AttributeError, StopIteration, LookupError, TypeError) as error:
            shape = '{"word": [{"word": ..., "relation": "synonym", "sense": 0, "pos": "n"}, ...]}'
            raise UserError(f"{path} is not a lexicon ({error}): expected JSON {shape}") from error

    def lookup(self, word: str, base: str, pos: str) -> list[ThesaurusEntry]:
        """Return the entries of a word."""
        found: dict[ThesaurusEntry, None] = {}
        for key in dict.fromkeys((base, word)):
            for raw in self._entries.get(key, ()):
                if raw["pos"] == pos and (new := self._base(raw["word"], pos, key == base)) and new != base:
                    found.setdefault(ThesaurusEntry(new, raw["relation"], int(raw["sense"])))
        return list(found)

    @staticmethod
    def _base(word: str, pos: str, is_base: bool) -> str | None:
        """Return the lemma of an entry; None for what is no word, such as the lexicon's own "shuting"."""
        if is_base and word in lemmas(word, pos):
            return word
        return lemma(word, pos)

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"kind": "lexicon", "file": self.name, "sha256": self._checksum}


class WordNetThesaurus:
    """Thesaurus of every sense of a word in WordNet, down to a rank; for nouns also expressions."""

    def __init__(self, wordnet: WordNet, senses: int = 3) -> None:
        self.name, self._wordnet, self._senses = "wordnet", wordnet, senses

    def lookup(self, word: str, base: str, pos: str) -> list[ThesaurusEntry]:
        """Return the entries of a word."""
        found: dict[ThesaurusEntry, None] = {}
        for rank, sense in enumerate(self._wordnet.senses(base, pos)[: self._senses]):
            for name in sense.lemma_names():
                self._add(found, name, base, pos, "synonym", rank)
            for above in sense.hypernyms():
                for name in above.lemma_names():
                    self._add(found, name, base, pos, "hypernym", rank)
        return list(found)

    @staticmethod
    def _add(found: dict[ThesaurusEntry, None], name: str, base: str, pos: str, relation: str, rank: int) -> None:
        word = name.replace("_", " ")
        if word != base and word.islower() and (pos == "n" or " " not in word):
            found.setdefault(ThesaurusEntry(word, relation, rank))

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"kind": "wordnet", "folder": str(self._wordnet.folder), "senses": self._senses}
