"""Swaps of one word of a query for one of similar meaning, in the right form, and several swaps at once.

A thesaurus says what words are similar: a lexicon file or WordNet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import Any, Protocol

from hero_plugin.integrations.data.records import Change, Rewording
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.english import article, inflected, is_mass, lemma, lemmas
from hero_plugin.integrations.tools.vocab.grammar import TaggedQuery
from hero_plugin.integrations.tools.vocab.meaning import WordNet


@dataclass(frozen=True)
class ThesaurusEntry:
    """A word that may replace another."""

    lemma: str
    relation: str
    """ "synonym" or "hypernym"."""
    rank: int
    """Which sense of the word it belongs to, 0 the commonest."""


class Thesaurus(Protocol):
    """Words of similar meaning.

    Attributes:
        name: Names it in the rewordings' ``source``.
        facts: For the manifest.
    """

    name: str
    facts: dict[str, Any]

    def lookup(self, word: str, base: str, pos: str) -> Iterable[ThesaurusEntry]:
        """Iterate over the entries of a word, perhaps some of them twice.

        Args:
            word: The form in the query.
            base: Its lemma.
            pos: n, v or a.
        """
        ...


class LexiconThesaurus:
    """Thesaurus in a JSON file: word -> [{"word", "relation", "sense", "pos"}, ...], in the form of the key."""

    def __init__(self, path: Path, checksum: str) -> None:
        self.name = path.name
        self.facts: dict[str, Any] = {"kind": "lexicon", "file": path.name, "sha256": checksum}
        try:
            self._entries = json.loads(path.read_text(encoding="utf-8"))
            sample = next(iter(self._entries.values()))[0]
            sample["word"], sample["relation"], sample["sense"], sample["pos"]
        except (OSError, ValueError, AttributeError, StopIteration, LookupError, TypeError) as error:
            shape = '{"word": [{"word": ..., "relation": "synonym", "sense": 0, "pos": "n"}, ...]}'
            raise UserError(f"{path} is not a lexicon ({error}): expected JSON {shape}") from error

    def lookup(self, word: str, base: str, pos: str) -> Iterator[ThesaurusEntry]:
        """Iterate over the entries of the lemma, then those of the word."""
        for key in (base, word):
            for raw in (raw for raw in self._entries.get(key, ()) if raw["pos"] == pos):
                new = raw["word"]
                if key != base or new not in lemmas(new, pos):
                    new = lemma(new, pos)  # None for what is no word, such as the lexicon's own "shuting"
                if new and new != base:
                    yield ThesaurusEntry(new, raw["relation"], int(raw["sense"]))


class WordNetThesaurus:
    """Thesaurus of every sense of a word in WordNet, down to a rank; for nouns also expressions."""

    name = "wordnet"

    def __init__(self, wordnet: WordNet, senses: int = 3) -> None:
        self._wordnet, self._senses = wordnet, senses
        self.facts: dict[str, Any] = {"kind": "wordnet", "folder": str(wordnet.folder), "senses": senses}

    def lookup(self, word: str, base: str, pos: str) -> Iterator[ThesaurusEntry]:
        """Iterate over the entries of the lemma, the commonest sense first."""
        for rank, sense in enumerate(self._wordnet.senses(base, pos)[: self._senses]):
            for relation, near in (("synonym", sense), *(("hypernym", above) for above in sense.hypernyms())):
                for name in near.lemma_names():
                    new = name.replace("_", " ")
                    if new != base and new.islower() and (pos == "n" or " " not in new):
                        yield ThesaurusEntry(new, relation, rank)


_POS = {"N": "n", "V": "v", "J": "a"}
_NAMES = {"n": "noun", "v": "verb", "a": "adjective"}
_PARTS = {"n": "thing", "v": "action", "a": "circumstance"}
_TAGS = ("NN", "NNS", "VB", "VBP", "VBZ", "VBG", "VBD", "VBN", "JJ")
_PERSON_NOUNS = """person human people man woman boy girl kid child baby toddler teenager adult lady guy gentleman
friend player athlete team crowd audience instructor coach worker dancer singer someone"""
_PERSONS = frozenset(_PERSON_NOUNS.split())
SOMEBODY = frozenset({"somebody", "someone", "anybody", "everybody", "nobody", "anyone"})
"""Pronouns that WordNet lists among the synonyms of "person"; they stand without an article."""


@dataclass(frozen=True)
class Swap(Rewording):
    """One word replaced by another, with what filters need to know about it."""

    place: int = 0
    """Place of the word in the query; of an expression's noun or verb."""
    tag: str = ""
    """Penn tag of that word."""
    pos: str = ""
    """n, v, a or r."""
    base: str = ""
    new_base: str = ""
    """Lemmas of both words."""
    relation: str = ""
    rank: int = 0
    """As in ``ThesaurusEntry``."""
    edits: tuple[tuple[int, str], ...] = ()
    """(place of a word, what stands there now): the word itself, and its article."""
    curated: bool = False
    """A person wrote it down with the conditions under which it holds: no statistics need judge it."""

    @property
    def new(self) -> str:
        """The new word or expression, in its form."""
        return self.changes[0].new


class WordSwaps:
    """Propose every swap that a thesaurus offers for the words of a query; filters judge them."""

    def __init__(self, thesaurus: Thesaurus, relations: Collection[str] = ("synonym",)) -> None:
        self.thesaurus, self.relations = thesaurus, tuple(relations)
        self.name = f"swaps from {thesaurus.name}"

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {**self.thesaurus.facts, "relations": list(self.relations)}

    def propose(self, query: TaggedQuery) -> Iterator[Swap]:
        """Iterate over swaps of single words, in the query's order."""
        for place, (word, tag) in enumerate(zip(query.words, query.tags, strict=True)):
            pos = _POS.get(tag[:1]) if tag in _TAGS else None
            base = lemma(word, pos) if pos else None
            if pos is None or base is None:
                continue
            for entry in dict.fromkeys(self.thesaurus.lookup(word, base, pos)):
                if entry.relation in self.relations and (new := _in_form(entry.lemma, tag, word == base)):
                    yield _swap(query, place, pos, base, entry, new)


def _in_form(new: str, tag: str, is_base: bool) -> str | None:
    """Return the form of a new lemma for a tag; a plural-only noun may become one that is never counted."""
    *before, head = new.split()
    if new in SOMEBODY or tag == "JJ" or (tag == "NNS" and is_base and is_mass(head)):
        return new  # the last: clothes -> apparel
    form = inflected(head, tag)
    return " ".join((*before, form[0])) if form else None


def _swap(query: TaggedQuery, place: int, pos: str, base: str, entry: ThesaurusEntry, new: str) -> Swap:
    edits = [(place, new)]
    if query.word(place - 1) in ("a", "an"):
        edits.insert(0, (place - 1, "" if new in SOMEBODY else article(new)))
    kind = "spelling" if entry.relation == "synonym" and _is_spelling(base, entry.lemma) else entry.relation
    part = "person" if pos == "n" and base in _PERSONS else _PARTS[pos]
    return Swap(
        sentence=query.with_words(dict(edits)),
        changes=(Change(query.words[place], new, kind, _NAMES[pos], part),),
        place=place,
        tag=query.tags[place],
        pos=pos,
        base=base,
        new_base=entry.lemma,
        relation=entry.relation,
        rank=entry.rank,
        edits=tuple(edits),
    )


def _is_spelling(one: str, other: str) -> bool:
    """Return whether two words are spellings of one: grey and gray, pajamas and pyjamas, utilize and utilise."""
    if one[0] != other[0] or abs(len(one) - len(other)) > 2 or min(len(one), len(other)) < 4:
        return False
    return _skeleton(one) == _skeleton(other)


def _skeleton(word: str) -> str:
    """Return the consonants of a word, doubled ones once, z as s."""
    consonants = (letter for letter in word.replace("z", "s") if letter not in "aeiouyw- ")
    return "".join(letter for letter, _ in groupby(consonants))


COMBINATIONS = 24
"""Of a query with thirty swaps there are hundreds of pairs; the choice among them needs a few."""


def combine(query: TaggedQuery, swaps: Sequence[Swap], size: int) -> Iterator[Rewording]:
    """Iterate over rewordings that make several accepted swaps at once, of different words.

    Of each number of swaps at most ``COMBINATIONS``, in an order that depends on the words alone.
    """
    for number in range(2, size + 1):
        groups = [group for group in combinations(swaps, number) if _are_apart(group)]
        for group in sorted(groups, key=_draw)[:COMBINATIONS]:
            edits = dict(edit for swap in group for edit in swap.edits)
            sources = ", ".join(dict.fromkeys(swap.source for swap in group if swap.source))
            changes = tuple(change for swap in group for change in swap.changes)
            yield Rewording(query.with_words(edits), changes, source=sources)


def _are_apart(group: Sequence[Swap]) -> bool:
    """Return whether no two swaps touch the same word."""
    places = [place for swap in group for place, _ in swap.edits]
    return len(places) == len(set(places))


def _draw(group: Sequence[Swap]) -> bytes:
    return hashlib.sha256(" ".join(swap.sentence for swap in group).encode()).digest()
