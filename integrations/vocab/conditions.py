"""Conditions of a phrasebook's entries, checked where the old expression stands in a query."""

from __future__ import annotations

from hero_plugin.integrations.vocab.english import lemma
from hero_plugin.integrations.vocab.noun_phrase import NounPhrase, breaks_off, noun_phrase, opens_noun_phrase
from hero_plugin.integrations.vocab.phrasebook import PhraseEntry
from hero_plugin.integrations.vocab.query import TaggedQuery

__all__ = ["holds_for_noun", "holds_for_verb", "holds_in"]

_NOUNS = ("NN", "NNS")


def holds_in(entry: PhraseEntry, query: TaggedQuery, start: int, stop: int) -> bool:
    """Return whether the conditions for any part of speech hold, for the expression at words[start:stop]."""
    before = query.words[start - 1] if start and not breaks_off(query, start - 1) else ""
    after = word_at(query, stop) if not breaks_off(query, stop - 1) else ""
    words = {*query.words[:start], *query.words[stop:]}
    words |= {base for word in words if (base := lemma(word, "n")) is not None}
    return (
        (not entry.before or before in entry.before)
        and before not in entry.before_not
        and (not entry.next or after in entry.next)
        and after not in entry.next_not
        and (not entry.next_tag or (stop < len(query.tags) and query.tags[stop] in entry.next_tag))
        and (not entry.with_ or bool(words & entry.with_))
        and not words & entry.without
    )


def holds_for_noun(entry: PhraseEntry, query: TaggedQuery, start: int, stop: int) -> bool:
    """Return whether the conditions hold for the noun at words[start:stop]: its phrase and adjacent nouns."""
    head = query.words[stop - 1]
    if any(lemma(word, "n") == lemma(head, "n") for word in (*query.words[:start], *query.words[stop:])):
        return False  # "the boy" here and "the lad" there would be two of them
    before = start - 1 if start and query.tags[start - 1] in _NOUNS and not breaks_off(query, start - 1) else None
    after = stop if stop < len(query.tags) and not breaks_off(query, stop - 1) else None
    if before is not None and query.words[before] not in entry.beside:
        return False
    if after is not None and query.tags[after] in (*_NOUNS, "?") and query.words[after] not in entry.beside:
        return False
    if not entry.within:
        return True
    place = start - 1
    while place >= 0 and query.tags[place] in ("DT", "PRP$", "JJ", "CD", *_NOUNS):
        place -= 1
    return place >= 0 and query.words[place] in entry.within


def holds_for_verb(entry: PhraseEntry, query: TaggedQuery, stop: int, found: NounPhrase | None) -> bool:
    """Return whether the conditions hold for a verb expression before words[stop], and for its object."""
    if entry.no_object and opens_noun_phrase(query, stop) and not breaks_off(query, stop - 1):
        return False
    if entry.object and (found is None or not found.heads & entry.object):
        return False
    if entry.object_not and found is not None and found.heads & entry.object_not:
        return False
    end = stop if found is None else max(stop, found.stop)
    then = word_at(query, end) if not breaks_off(query, end - 1) else ""
    if (entry.then and then not in entry.then) or then in entry.then_not:
        return False
    if entry.then_object:
        place = noun_phrase(query, end + 1)
        return place is not None and bool(place.heads & entry.then_object)
    return True


def word_at(query: TaggedQuery, place: int) -> str:
    """Return the word at a place; "" past the end."""
    return query.words[place] if place < len(query.words) else ""
