"""Swaps of one word of a query for one of similar meaning, in the right form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from hero_plugin.integrations.data.records import Change, Rewording
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.english import TaggedQuery, article, inflected, is_mass, lemma, lemmas
from hero_plugin.integrations.tools.vocab.meaning import WordNet

# Thesaurus: words of similar meaning, from a lexicon file or from WordNet.


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


_POS = {"N": "n", "V": "v", "J": "a"}
_NAMES = {"n": "noun", "v": "verb", "a": "adjective"}
_TAGS = ("NN", "NNS", "VB", "VBP", "VBZ", "VBG", "VBD", "VBN", "JJ")
COMBINATIONS = 24
"""Of a query with thirty swaps there are hundreds of pairs; the choice among them needs a few."""
_PERSONS = """person human people man woman boy girl kid child baby toddler teenager adult lady guy gentleman friend
player athlete team crowd audience instructor coach worker dancer singer someone"""
PERSONS = frozenset(_PERSONS.split())
SOMEBODY = frozenset({"somebody", "someone", "anybody", "everybody", "nobody", "anyone"})
"""Pronouns that WordNet lists among the synonyms of "person"; they stand without an article."""


@dataclass(frozen=True)
class Swap(Rewording):
    """One word replaced by another, with what filters need to know about it."""

    place: int = 0
    tag: str = ""
    pos: str = ""
    base: str = ""
    new_base: str = ""
    relation: str = ""
    rank: int = 0
    edits: tuple[tuple[int, str], ...] = ()
    """(place of a word, what stands there now): the word itself, and its article."""
    curated: bool = False
    """A person wrote it down with the conditions under which it holds: no statistics need judge it."""

    @property
    def places(self) -> frozenset[int]:
        """Places of the words that it touches."""
        return frozenset(place for place, _ in self.edits)


class WordSwaps:
    """Propose every swap that a thesaurus offers for the words of a query; filters judge them."""

    def __init__(self, thesaurus: Thesaurus, relations: Collection[str] = ("synonym",)) -> None:
        self.thesaurus, self.relations = thesaurus, tuple(relations)
        self.name = f"swaps from {thesaurus.name}"

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {**self.thesaurus.describe(), "relations": list(self.relations)}

    def propose(self, query: TaggedQuery) -> Iterator[Swap]:
        """Iterate over swaps of single words, in the query's order."""
        for place, (word, tag) in enumerate(zip(query.words, query.tags, strict=True)):
            pos = _POS.get(tag[:1]) if tag in _TAGS else None
            base = lemma(word, pos) if pos else None
            if pos is None or base is None:
                continue
            for entry in self.thesaurus.lookup(word, base, pos):
                if entry.relation in self.relations:
                    for new in _in_form(entry.lemma, pos, tag, word == base):
                        yield _swap(query, place, tag, pos, base, entry.lemma, new, entry.relation, entry.rank)


def _in_form(new: str, pos: str, tag: str, is_base: bool) -> Sequence[str]:
    """Return the forms of a new lemma for a tag; a plural-only noun may become one that is never counted."""
    if new in SOMEBODY or tag == "JJ":
        return (new,)
    *before, head = new.split()
    form = [" ".join((*before, each)) for each in inflected(head, tag)]
    if tag == "NNS" and is_base and is_mass(head):
        return (new,)  # clothes -> apparel
    return form[:1]


def _swap(
    query: TaggedQuery, place: int, tag: str, pos: str, base: str, new_base: str, new: str, relation: str, rank: int
) -> Swap:
    edits = [(place, new)]
    before = query.words[place - 1] if place else ""
    if before in ("a", "an"):
        edits.insert(0, (place - 1, "" if new in SOMEBODY else article(new)))
    kind = "spelling" if relation == "synonym" and _is_spelling(base, new_base) else relation
    change = Change(query.words[place], new, kind, _NAMES[pos], _part(base, pos))
    sentence = query.with_words(dict(edits))
    return Swap(sentence, (change,), (), "", place, tag, pos, base, new_base, relation, rank, tuple(edits))


def _part(base: str, pos: str) -> str:
    if pos == "n":
        return "person" if base in PERSONS else "thing"
    return "action" if pos == "v" else "circumstance"


def _is_spelling(one: str, other: str) -> bool:
    """Return whether two words are spellings of one: grey and gray, pajamas and pyjamas, utilize and utilise."""
    if one[0] != other[0] or abs(len(one) - len(other)) > 2 or min(len(one), len(other)) < 4:
        return False
    return _skeleton(one) == _skeleton(other)


def _skeleton(word: str) -> str:
    consonants = [
        letter for letter in word.replace("z", "s").replace("-", "").replace(" ", "") if letter not in "aeiouyw"
    ]
    return "".join(letter for place, letter in enumerate(consonants) if not place or letter != consonants[place - 1])


def combine(query: TaggedQuery, swaps: Sequence[Swap], size: int) -> Iterator[Rewording]:
    """Iterate over rewordings that make several accepted swaps at once, of different words.

    Of each number of swaps at most ``COMBINATIONS``, in an order that depends on the words alone.
    """
    for number in range(2, size + 1):
        groups = [
            group
            for group in combinations(swaps, number)
            if sum(len(swap.places) for swap in group) == len(frozenset().union(*(swap.places for swap in group)))
        ]
        for group in sorted(groups, key=_lot)[:COMBINATIONS]:
            edits = dict(edit for swap in group for edit in swap.edits)
            sources = ", ".join(dict.fromkeys(swap.source for swap in group if swap.source))
            changes = tuple(change for swap in group for change in swap.changes)
            yield Rewording(query.with_words(edits), changes, source=sources)


def _lot(group: Sequence[Swap]) -> bytes:
    return hashlib.sha256(" ".join(swap.sentence for swap in group).encode()).digest()
