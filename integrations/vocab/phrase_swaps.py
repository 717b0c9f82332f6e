"""Swaps of the words and expressions of a phrasebook, as a source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from hero_plugin.integrations.vocab.conditions import holds_for_noun, holds_for_verb, holds_in
from hero_plugin.integrations.vocab.english import article, inflected, is_mass, lemma, lemmas
from hero_plugin.integrations.vocab.noun_phrase import NounPhrase, noun_phrase
from hero_plugin.integrations.vocab.phrasebook import SLOT, PhraseEntry
from hero_plugin.integrations.vocab.query import TaggedQuery
from hero_plugin.integrations.vocab.rewording import Change
from hero_plugin.integrations.vocab.stop_words import PARTICLES
from hero_plugin.integrations.vocab.swaps import SOMEBODY, Swap
from hero_plugin.integrations.vocab.verb_form import verb_form

__all__ = ["PhraseSwaps"]

_POS = {"noun": "n", "verb": "v", "fixed": "r"}


class PhraseSwaps:
    """Propose every swap that the entries allow in a query, in the query's order."""

    def __init__(self, entries: Sequence[PhraseEntry], name: str = "phrasebook", checksum: str = "") -> None:
        self.name = "phrasebook"
        self._facts = {"kind": "phrasebook", "file": name, "sha256": checksum, "entries": len(entries)}
        self._by_first: dict[str, list[PhraseEntry]] = defaultdict(list)
        for entry in entries:
            self._by_first[entry.old[0]].append(entry)

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return dict(self._facts)

    def propose(self, query: TaggedQuery) -> Iterator[Swap]:
        """Iterate over the swaps, in the query's order."""
        for place, word in enumerate(query.words):
            keys = dict.fromkeys((word, *lemmas(word, "n"), *lemmas(word, "v")))
            for entry in (entry for key in keys for entry in self._by_first.get(key, ())):
                propose = {"noun": _nouns, "verb": _verbs, "fixed": _fixed}[entry.pos]
                yield from propose(entry, query, place)


def _fixed(entry: PhraseEntry, query: TaggedQuery, start: int) -> Iterator[Swap]:
    stop = start + len(entry.old)
    if query.words[start:stop] == entry.old and holds_in(entry, query, start, stop):
        for new in entry.new:
            yield _swap(entry, query, start, _in_place(start, stop, new), list(entry.old), new, query.tags[start])


def _nouns(entry: PhraseEntry, query: TaggedQuery, start: int) -> Iterator[Swap]:
    stop = start + len(entry.old)
    head = stop - 1
    if stop > len(query.words) or query.words[start:head] != entry.old[:-1]:
        return
    word, tag = query.words[head], query.tags[head]
    as_it_stands = word == entry.old[-1]
    if tag not in ("NN", "NNS") or not (as_it_stands or lemma(word, "n") == entry.old[-1]):
        return
    if not (holds_in(entry, query, start, stop) and holds_for_noun(entry, query, start, stop)):
        return
    for new in entry.new:
        last = new[-1]
        if not as_it_stands and not is_mass(last):
            last = next(iter(inflected(last, "NNS")), last)
        words = (*new[:-1], last)
        yield _swap(entry, query, start, _in_place(start, stop, words), [*query.words[start:stop]], words, tag)


def _verbs(entry: PhraseEntry, query: TaggedQuery, place: int) -> Iterator[Swap]:
    if query.tags[place][:1] != "V" and not (query.tags[place] == "?" and query.words[place].endswith("ing")):
        return
    form = verb_form(query, place, entry.old[0])
    if form is None or (entry.forms and form not in entry.forms):
        return
    for rest, found in _arrangements(entry, query, place):
        stop = place + 1 if not rest else rest[-1] + 1
        adjacent = place + 1 + sum(1 for each in rest if found is None or each < found.start)
        if not holds_in(entry, query, place, stop if found is None or found.start >= stop else adjacent):
            continue
        if not holds_for_verb(entry, query, stop, found):
            continue
        for new in entry.new:
            verb = inflected(new[0], form)
            if verb and (edits := _verb_edits(query, place, rest, found, (verb[0], *new[1:]))) is not None:
                old = [query.words[place], *(query.words[each] for each in rest)]
                yield _swap(entry, query, place, edits, old, (verb[0], *new[1:]), form)


def _arrangements(
    entry: PhraseEntry, query: TaggedQuery, place: int
) -> Iterator[tuple[tuple[int, ...], NounPhrase | None]]:
    """Iterate over places of the words after the verb, and its object: "turns on the light", "turns the light on"."""
    words = entry.old[1:]
    needs_object = bool(entry.object) or SLOT in words
    if SLOT in words and words[-1] != SLOT:
        slot = words.index(SLOT)
        yield from _around(query, place, words[:slot], words[slot + 1 :])
        return
    words = tuple(word for word in words if word != SLOT)
    stop = place + 1 + len(words)
    if query.words[place + 1 : stop] == words:
        found = noun_phrase(query, stop) if needs_object else None
        if found is not None or not needs_object:
            yield tuple(range(place + 1, stop)), found
    if entry.object and len(words) == 1 and words[0] in PARTICLES:
        for rest, found in _around(query, place, (), words):
            assert found is not None
            after = query.tags[rest[-1] + 1] if rest[-1] + 1 < len(query.tags) else ""
            if after not in ("DT", "PRP$", "NN", "NNS", "JJ", "CD"):  # "the book off the shelf": no particle
                yield rest, found


def _around(
    query: TaggedQuery, place: int, before: tuple[str, ...], after: tuple[str, ...]
) -> Iterator[tuple[tuple[int, ...], NounPhrase | None]]:
    start = place + 1 + len(before)
    if query.words[place + 1 : start] != before:
        return
    found = noun_phrase(query, start)
    if found is not None and query.words[found.stop : found.stop + len(after)] == after:
        yield (*range(place + 1, start), *range(found.stop, found.stop + len(after))), found


def _verb_edits(
    query: TaggedQuery, place: int, rest: tuple[int, ...], found: NounPhrase | None, new: tuple[str, ...]
) -> tuple[tuple[int, str], ...] | None:
    """Return what stands where; ``new`` is the verb in its form, then the words after it, perhaps around a slot."""
    split = SLOT in new and new[-1] != SLOT
    tail = new[new.index(SLOT) + 1 :] if split else ()
    front = tuple(word for word in (new[: new.index(SLOT)] if split else new) if word != SLOT)
    moved = found is not None and (found.is_pronoun or (bool(rest) and rest[-1] >= found.stop))
    if moved and not split and new[-1] != SLOT and len(new) > 1:
        front, tail = front[:1], front[1:]  # "switches it on"
    if tail and found is None:
        return None
    edits = {place: " ".join(front), **dict.fromkeys(rest, "")}
    behind = [each for each in rest if found is not None and each >= found.stop]
    if tail and behind:
        edits[behind[0]] = " ".join(tail)
    elif tail:
        assert found is not None
        last = found.stop - 1
        first, end = query.spans[last]
        edits[last] = f"{query.sentence[first:end]} {' '.join(tail)}"
    return tuple(sorted(edits.items()))


def _in_place(start: int, stop: int, words: Sequence[str]) -> tuple[tuple[int, str], ...]:
    return ((start, " ".join(words)), *((place, "") for place in range(start + 1, stop)))


def _swap(
    entry: PhraseEntry,
    query: TaggedQuery,
    start: int,
    edits: Sequence[tuple[int, str]],
    old: Sequence[str],
    new: Sequence[str],
    tag: str,
) -> Swap:
    edits = list(edits)
    words = tuple(word for word in new if word != SLOT)
    if start and query.words[start - 1] in ("a", "an") and entry.pos != "verb":
        counted = new[0] not in SOMEBODY and entry.old[0] not in ("a", "an")
        edits.insert(0, (start - 1, article(words[0]) if counted else ""))
    kind = "synonym" if len(entry.old) == len(words) == 1 else "phrase"
    change = Change(" ".join(old), " ".join(words), kind, "" if entry.pos == "fixed" else entry.pos, entry.part)
    place = start + len(entry.old) - 1 if entry.pos == "noun" else start
    return Swap(
        sentence=query.with_words(dict(edits)).rstrip(),
        changes=(change,),
        place=place,
        tag=tag,
        pos=_POS[entry.pos],
        base=" ".join(word for word in entry.old if word != SLOT),
        new_base=" ".join(words),
        relation="synonym",
        edits=tuple(edits),
        curated=True,
    )
