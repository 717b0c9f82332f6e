"""Swaps of the words and expressions of a phrasebook, where its conditions hold.

Read from the top: what an entry says, when its conditions hold in a query, what the query becomes.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hero_plugin.integrations.data import Change
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.vocab import english
from hero_plugin.integrations.tools.vocab.english import NounPhrase, TaggedQuery
from hero_plugin.integrations.tools.vocab.sources import SOMEBODY, Swap

PHRASEBOOK = Path(__file__).with_name("phrasebook.json")
"""The package's own."""
SLOT = "..."
"""Stands for the noun phrase that a verb takes."""
_POS = {"noun": "n", "verb": "v", "fixed": "r"}
_PARTS = {"noun": "thing", "verb": "action", "fixed": "circumstance"}
_ALL_PARTS = ("person", "thing", "action", "circumstance")


Words = frozenset[str]
_ANY: Words = frozenset()


@dataclass(frozen=True)
class PhraseEntry:
    """One row of a phrasebook.

    Words are lower case; nouns (their last word) and verbs (their first) stand for all their forms. Conditions are sets
    of words, empty if there is none; "" is the query's edge. Those with ``_not`` must not hold.
    """

    old: tuple[str, ...]
    new: tuple[tuple[str, ...], ...]
    pos: str  # "noun", "verb", or "fixed": exactly these words
    part: str  # as in ``Change``
    object: Words = _ANY  # what the verb's object is about
    object_not: Words = _ANY
    no_object: bool = False  # no object follows
    next: Words = _ANY  # the word after the expression
    next_not: Words = _ANY
    next_tag: Words = _ANY  # the tag of that word
    then: Words = _ANY  # the word after the object
    then_not: Words = _ANY
    then_object: Words = _ANY  # what the noun phrase after that word (or after ``next``, without an object) is about
    before: Words = _ANY  # the word before the expression
    before_not: Words = _ANY
    within: Words = _ANY  # the word before the noun phrase that a noun is in
    beside: Words = _ANY  # nouns that may stand before or after a noun; no others may
    with_: Words = _ANY  # one of these is elsewhere in the query
    without: Words = _ANY  # none of these is in the query
    forms: Words = _ANY  # the only tags in which a verb is replaced


_SETS = tuple(field.name for field in fields(PhraseEntry) if field.default is _ANY)
_KEYS = ("old", "new", "pos", "part", "no_object", *(name.rstrip("_") for name in _SETS))


def read_phrasebook(path: Path = PHRASEBOOK) -> list[PhraseEntry]:
    """Read a file ``{"classes": {NAME: [WORD, ...]}, "entries": [{"old", "new", "pos", ...}]}``.

    In a condition "@NAME" stands for the words of a class. Raises ``UserError`` where the file or an entry is wrong.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        classes, rows = raw.get("classes", {}), raw["entries"]
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        shape = '{"classes": {...}, "entries": [{"old": "pick up", "new": ["hoist"], "pos": "verb"}, ...]}'
        raise UserError(f"{path} is not a phrasebook ({error}): expected JSON {shape}") from error
    entries = []
    for number, row in enumerate(rows, 1):
        try:
            entries.append(_entry(row, classes))
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise UserError(f"{path}, entry {number}, {json.dumps(row)[:100]}: {error}") from error
    return entries


def _entry(row: Mapping[str, Any], classes: Mapping[str, list[str]]) -> PhraseEntry:
    unknown = set(row) - set(_KEYS)
    if unknown:
        raise ValueError(f"unknown {sorted(unknown)}: expected some of {', '.join(_KEYS)}")
    pos = row["pos"]
    if pos not in _PARTS:
        raise ValueError(f"pos must be one of {', '.join(_PARTS)}, got {pos!r}")
    part = row.get("part", _PARTS[pos])
    if part not in _ALL_PARTS:
        raise ValueError(f"part must be one of {', '.join(_ALL_PARTS)}, got {part!r}")
    old, new = tuple(row["old"].split()), tuple(tuple(each.split()) for each in row["new"])
    if not old or not new or not all(new):
        raise ValueError("old and new must have words")
    if old in new:
        raise ValueError("an expression cannot replace itself")
    if max(each.count(SLOT) for each in (old, *new)) > 1 or old[0] == SLOT:
        raise ValueError(f"at most one {SLOT} in an expression, and not at its beginning")
    # No form of another verb; one that the dictionary lacks is english.inflected by rule.
    if pos == "verb" and (bad := [v for v, *_ in (old, *new) if v not in (english.lemmas(v, "v") or (v,))]):
        raise ValueError(f"not the base form of a verb: {', '.join(bad)}")
    sets = {name: _words(row.get(name.rstrip("_"), ()), classes) for name in _SETS}
    return PhraseEntry(old, new, pos, part, no_object=bool(row.get("no_object", False)), **sets)


def _words(names: Any, classes: Mapping[str, list[str]]) -> frozenset[str]:
    if isinstance(names, str):
        raise ValueError(f"a condition is a list of words, got {names!r}")
    return frozenset(word for name in names for word in (classes[name[1:]] if name.startswith("@") else (name,)))


def _before(query: TaggedQuery, start: int) -> str:
    return "" if query.breaks_off(start - 1) else query.word(start - 1)


def _after(query: TaggedQuery, stop: int) -> str:
    return "" if query.breaks_off(stop - 1) else query.word(stop)


def holds_in(entry: PhraseEntry, query: TaggedQuery, start: int, stop: int) -> bool:
    """Return whether the conditions for any part of speech hold, for the expression at words[start:stop]."""
    before, after = _before(query, start), _after(query, stop)
    words = {*query.words[:start], *query.words[stop:]}
    words |= {base for word in words if (base := english.lemma(word, "n")) is not None}
    return (
        (not entry.before or before in entry.before)
        and before not in entry.before_not
        and (not entry.next or after in entry.next)
        and after not in entry.next_not
        and (not entry.next_tag or query.tag(stop) in entry.next_tag)
        and (not entry.with_ or bool(words & entry.with_))
        and not words & entry.without
    )


def holds_for_noun(entry: PhraseEntry, query: TaggedQuery, start: int, stop: int) -> bool:
    """Return whether the conditions hold for the noun at words[start:stop]: its phrase and adjacent nouns."""
    head = query.words[stop - 1]
    if any(
        english.lemma(word, "n") == english.lemma(head, "n") for word in (*query.words[:start], *query.words[stop:])
    ):
        return False  # "the boy" here and "the lad" there would be two of them
    if query.tag(start - 1) in english.NOUNS and _before(query, start) not in ("", *entry.beside):
        return False
    if query.tag(stop) in (*english.NOUNS, "?") and _after(query, stop) not in ("", *entry.beside):
        return False
    if not entry.within:
        return True
    place = start - 1
    while query.tag(place) in (*english.BEFORE_NOUN, *english.NOUNS):
        place -= 1
    return place >= 0 and query.words[place] in entry.within


def holds_for_verb(entry: PhraseEntry, query: TaggedQuery, stop: int, found: NounPhrase | None) -> bool:
    """Return whether the conditions hold for a verb expression before words[stop], and for its object."""
    if entry.no_object and english.opens_noun_phrase(query, stop) and not query.breaks_off(stop - 1):
        return False
    if entry.object and (found is None or not found.heads & entry.object):
        return False
    if entry.object_not and found is not None and found.heads & entry.object_not:
        return False
    end = stop if found is None else max(stop, found.stop)
    then = _after(query, end)
    if (entry.then and then not in entry.then) or then in entry.then_not:
        return False
    if entry.then_object:
        place = english.noun_phrase(query, end + 1)
        return place is not None and bool(place.heads & entry.then_object)
    return True


class PhraseSwaps:
    """Propose every swap that the entries allow in a query, in the query's order."""

    name = "phrasebook"

    def __init__(self, entries: Sequence[PhraseEntry], name: str = "phrasebook", checksum: str = "") -> None:
        self.facts = {"kind": "phrasebook", "file": name, "sha256": checksum, "entries": len(entries)}
        self._by_first: dict[str, list[PhraseEntry]] = defaultdict(list)
        for entry in entries:
            self._by_first[entry.old[0]].append(entry)

    def propose(self, query: TaggedQuery) -> Iterator[Swap]:
        """Iterate over the swaps, in the query's order."""
        for place, word in enumerate(query.words):
            for key in dict.fromkeys((word, *english.lemmas(word, "n"), *english.lemmas(word, "v"))):
                for entry in self._by_first.get(key, ()):
                    yield from _PROPOSE[entry.pos](entry, query, place)


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
    if tag not in english.NOUNS or not (as_it_stands or english.lemma(word, "n") == entry.old[-1]):
        return
    if not (holds_in(entry, query, start, stop) and holds_for_noun(entry, query, start, stop)):
        return
    for new in entry.new:
        last = new[-1]
        if not as_it_stands and not english.is_mass(last):
            last = next(iter(english.inflected(last, "NNS")), last)
        words = (*new[:-1], last)
        yield _swap(entry, query, start, _in_place(start, stop, words), [*query.words[start:stop]], words, tag)


def _verbs(entry: PhraseEntry, query: TaggedQuery, place: int) -> Iterator[Swap]:
    tag = query.tags[place]
    if tag[0] != "V" and not (tag == "?" and query.words[place].endswith("ing")):
        return
    form = english.verb_form(query, place, entry.old[0])
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
            verb = english.inflected(new[0], form)
            if verb and (edits := _verb_edits(query, place, rest, found, (verb[0], *new[1:]))) is not None:
                old = [query.words[place], *(query.words[each] for each in rest)]
                yield _swap(entry, query, place, edits, old, (verb[0], *new[1:]), form)


_PROPOSE = {"noun": _nouns, "verb": _verbs, "fixed": _fixed}
Places = tuple[int, ...]
Edits = dict[int, str]  # place of a word -> what stands there now


def _arrangements(entry: PhraseEntry, query: TaggedQuery, place: int) -> Iterator[tuple[Places, NounPhrase | None]]:
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
        found = english.noun_phrase(query, stop) if needs_object else None
        if found is not None or not needs_object:
            yield tuple(range(place + 1, stop)), found
    if entry.object and len(words) == 1 and words[0] in english.PARTICLES:
        for rest, found in _around(query, place, (), words):
            after = query.tag(rest[-1] + 1)  # "the book off the shelf": no particle
            if after not in (*english.BEFORE_NOUN, *english.NOUNS):
                yield rest, found


def _around(
    query: TaggedQuery, place: int, before: tuple[str, ...], after: tuple[str, ...]
) -> Iterator[tuple[Places, NounPhrase]]:
    start = place + 1 + len(before)
    if query.words[place + 1 : start] != before:
        return
    found = english.noun_phrase(query, start)
    if found is not None and query.words[found.stop : found.stop + len(after)] == after:
        yield (*range(place + 1, start), *range(found.stop, found.stop + len(after))), found


def _verb_edits(
    query: TaggedQuery, place: int, rest: Places, found: NounPhrase | None, new: tuple[str, ...]
) -> Edits | None:
    """Return what stands where; ``new`` is the verb in its form, then the words after it, perhaps around a slot."""
    slot = new.index(SLOT) if SLOT in new else len(new)
    front, tail = new[:slot], new[slot + 1 :]
    moved = found is not None and (found.is_pronoun or (bool(rest) and rest[-1] >= found.stop))
    if moved and SLOT not in new:
        front, tail = new[:1], new[1:]  # "switches it on"
    if tail and found is None:
        return None
    edits = {place: " ".join(front), **dict.fromkeys(rest, "")}
    if tail and found is not None:
        last = found.stop - 1
        behind = [each for each in rest if each > last]
        start, end = query.spans[last]
        edits[behind[0] if behind else last] = " ".join(tail if behind else (query.sentence[start:end], *tail))
    return edits


def _in_place(start: int, stop: int, words: Sequence[str]) -> Edits:
    return {start: " ".join(words), **dict.fromkeys(range(start + 1, stop), "")}


def _swap(
    entry: PhraseEntry, query: TaggedQuery, start: int, edits: Edits, old: Sequence[str], new: Sequence[str], tag: str
) -> Swap:
    words = tuple(word for word in new if word != SLOT)
    if query.word(start - 1) in ("a", "an") and entry.pos != "verb":
        counted = new[0] not in SOMEBODY and entry.old[0] not in ("a", "an")
        edits = {start - 1: english.article(words[0]) if counted else "", **edits}
    kind = "synonym" if len(entry.old) == len(words) == 1 else "phrase"
    change = Change(" ".join(old), " ".join(words), kind, "" if entry.pos == "fixed" else entry.pos, entry.part)
    place = start + len(entry.old) - 1 if entry.pos == "noun" else start
    return Swap(
        sentence=query.with_words(edits).rstrip(),
        changes=(change,),
        place=place,
        tag=tag,
        pos=_POS[entry.pos],
        base=" ".join(word for word in entry.old if word != SLOT),
        new_base=" ".join(words),
        relation="synonym",
        edits=tuple(sorted(edits.items())),
        curated=True,
    )
