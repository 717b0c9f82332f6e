"""Words of similar meaning, from a lexicon file or from WordNet, behind one call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.vocab.english import lemma, lemmas
from hero_plugin.integrations.vocab.wordnet import WordNet

__all__ = ["Entry", "LexiconThesaurus", "Thesaurus", "WordNetThesaurus"]


@dataclass(frozen=True)
class Entry:
    """One word that may stand for another."""

    lemma: str
    relation: str
    """ "synonym" or "hypernym"."""
    rank: int
    """Which sense of the word it belongs to, 0 the commonest."""


class Thesaurus(Protocol):
    """pos is n, v or a; word is the form that a query has, base its lemma."""

    name: str

    def lookup(self, word: str, base: str, pos: str) -> Sequence[Entry]: ...

    def describe(self) -> dict[str, Any]: ...


class LexiconThesaurus:
    """JSON: word -> [{"word", "relation", "sense", "pos"}, ...], words in the form of the key."""

    def __init__(self, path: Path, checksum: str) -> None:
        self.name, self._checksum = path.name, checksum
        try:
            self._entries = json.loads(path.read_text(encoding="utf-8"))
            sample = next(iter(self._entries.values()))[0]
            sample["word"], sample["relation"], sample["sense"], sample["pos"]
        except (OSError, ValueError, AttributeError, StopIteration, LookupError, TypeError) as error:
            shape = '{"word": [{"word": ..., "relation": "synonym", "sense": 0, "pos": "n"}, ...]}'
            raise UserError(f"{path} is no lexicon ({error}): expected JSON {shape}") from error

    def lookup(self, word: str, base: str, pos: str) -> list[Entry]:
        found: dict[Entry, None] = {}
        for key in dict.fromkeys((base, word)):
            for raw in self._entries.get(key, ()):
                if raw["pos"] == pos and (new := self._base(raw["word"], pos, key == base)) and new != base:
                    found.setdefault(Entry(new, raw["relation"], int(raw["sense"])))
        return list(found)

    @staticmethod
    def _base(word: str, pos: str, is_base: bool) -> str | None:
        """The lemma of an entry; None for what is no word, such as the lexicon's own "shuting"."""
        if is_base and word in lemmas(word, pos):
            return word
        return lemma(word, pos)

    def describe(self) -> dict[str, Any]:
        return {"kind": "lexicon", "file": self.name, "sha256": self._checksum}


class WordNetThesaurus:
    """Every sense of a word in WordNet, down to a rank; also expressions of several words for nouns."""

    def __init__(self, wordnet: WordNet, senses: int = 3) -> None:
        self.name, self._wordnet, self._senses = "wordnet", wordnet, senses

    def lookup(self, word: str, base: str, pos: str) -> list[Entry]:
        found: dict[Entry, None] = {}
        for rank, sense in enumerate(self._wordnet.senses(base, pos)[: self._senses]):
            for name in sense.lemma_names():
                self._add(found, name, base, pos, "synonym", rank)
            for above in sense.hypernyms():
                for name in above.lemma_names():
                    self._add(found, name, base, pos, "hypernym", rank)
        return list(found)

    @staticmethod
    def _add(found: dict[Entry, None], name: str, base: str, pos: str, relation: str, rank: int) -> None:
        word = name.replace("_", " ")
        if word != base and word.islower() and (pos == "n" or " " not in word):
            found.setdefault(Entry(word, relation, rank))

    def describe(self) -> dict[str, Any]:
        return {"kind": "wordnet", "folder": str(self._wordnet.folder), "senses": self._senses}
