"""Noun phrases of a query: where one ends, and what it is about."""

from __future__ import annotations

from dataclasses import dataclass

from hero_plugin.integrations.vocab.english import lemma
from hero_plugin.integrations.vocab.query import TaggedQuery

__all__ = ["NounPhrase", "breaks_off", "noun_phrase", "opens_noun_phrase"]

_PRONOUNS = frozenset(("it", "them", "him", "her", "something", "everything", "themselves", "themself", "himself"))
_REFLEXIVE = frozenset(("themselves", "themself", "himself", "herself"))
_MEASURES = frozenset(
    (
        "pair",
        "piece",
        "pile",
        "bite",
        "sip",
        "lot",
        "couple",
        "stack",
        "bunch",
        "bit",
        "load",
        "slice",
        "handful",
        "few",
    )
)
"""Nouns that say how much of what comes after "of"."""
_BEFORE = ("DT", "PRP$", "JJ", "CD")


@dataclass(frozen=True)
class NounPhrase:
    """The noun phrase words[start:stop] of a query."""

    start: int
    stop: int
    head: str
    """What it is about, as it stands: "shoes" in "a pair of old shoes"."""
    is_pronoun: bool = False

    @property
    def heads(self) -> frozenset[str]:
        """The head as it stands and in the singular."""
        return frozenset((self.head, lemma(self.head, "n") or self.head))


def noun_phrase(query: TaggedQuery, start: int) -> NounPhrase | None:
    """Return the noun phrase that begins at a place of the query, None if none does."""
    place = start
    if place < len(query.words) and query.words[place] in _PRONOUNS:
        if query.words[place] in _REFLEXIVE and (more := noun_phrase(query, place + 1)) is not None:
            return NounPhrase(start, more.stop, more.head)  # "pours themselves a glass"
        if query.words[place] != "her" or not _is_noun(query, place + 1):
            return NounPhrase(start, place + 1, query.words[place], is_pronoun=True)
    while place < len(query.words) and (query.tags[place] in _BEFORE or _participle(query, place, start)):
        place += 1
    head = place
    while _is_noun(query, place):
        if place > head and breaks_off(query, place - 1):
            break
        place += 1
    if place == head:
        return None
    found = query.words[place - 1]
    if place < len(query.words) and query.words[place] == "of" and (more := noun_phrase(query, place + 1)) is not None:
        return NounPhrase(start, more.stop, more.head if found in _MEASURES else found)
    return NounPhrase(start, place, found)


def opens_noun_phrase(query: TaggedQuery, place: int) -> bool:
    """Return whether a noun phrase may begin here: a noun, a word before one, or a word of unclear class."""
    if place >= len(query.words):
        return False
    return query.tags[place] in (*_BEFORE, "PRP", "NN", "NNS", "?") or query.words[place] in _PRONOUNS


def breaks_off(query: TaggedQuery, place: int) -> bool:
    """Return whether a punctuation mark follows the word."""
    if place + 1 >= len(query.words):
        return True
    return any(mark in query.sentence[query.spans[place][1] : query.spans[place + 1][0]] for mark in ".,;:!?")


def _is_noun(query: TaggedQuery, place: int) -> bool:
    return place < len(query.words) and query.tags[place] in ("NN", "NNS")


def _participle(query: TaggedQuery, place: int, start: int) -> bool:
    """Return whether a participle stands before a noun, as in "a folded towel"."""
    return place > start and query.tags[place] in ("VBN", "VBG", "?") and _is_noun(query, place + 1)
