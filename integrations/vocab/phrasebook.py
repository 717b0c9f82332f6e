"""Phrasebook: words and expressions, their replacements, and the conditions for these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.vocab.english import lemmas

__all__ = ["PHRASEBOOK", "SLOT", "PhraseEntry", "read_phrasebook"]

PHRASEBOOK = Path(__file__).with_name("phrasebook.json")
"""The package's own."""
SLOT = "..."
"""Stands for the noun phrase that a verb takes."""
_PARTS = {"noun": "thing", "verb": "action", "fixed": "circumstance"}
_ALL_PARTS = ("person", "thing", "action", "circumstance")


@dataclass(frozen=True)
class PhraseEntry:
    """One row of a phrasebook.

    Words are lower case; nouns (their last word) and verbs (their first) stand for all their forms. Conditions are sets
    of words, empty if there is none; "" is the query's edge. Those with ``_not`` must not hold.
    """

    old: tuple[str, ...]
    new: tuple[tuple[str, ...], ...]
    pos: str
    """"noun", "verb", or "fixed": exactly these words."""
    part: str
    """As of `rewording.Change`."""
    object: frozenset[str] = frozenset()
    """What the verb's object is about."""
    object_not: frozenset[str] = frozenset()
    no_object: bool = False
    """No object follows."""
    next: frozenset[str] = frozenset()
    """The word after the expression."""
    next_not: frozenset[str] = frozenset()
    next_tag: frozenset[str] = frozenset()
    """The tag of that word."""
    then: frozenset[str] = frozenset()
    """The word after the object."""
    then_not: frozenset[str] = frozenset()
    then_object: frozenset[str] = frozenset()
    """What the noun phrase after that word (after `next` where there is no object) is about."""
    before: frozenset[str] = frozenset()
    """The word before the expression."""
    before_not: frozenset[str] = frozenset()
    within: frozenset[str] = frozenset()
    """The word before the noun phrase that a noun is in."""
    beside: frozenset[str] = frozenset()
    """Nouns that may stand before or after a noun; no others may."""
    with_: frozenset[str] = frozenset()
    """One of these is elsewhere in the query."""
    without: frozenset[str] = frozenset()
    """None of these is in the query."""
    forms: frozenset[str] = frozenset()
    """The only tags in which a verb is replaced."""


_SETS = tuple(field.name for field in fields(PhraseEntry) if "frozenset" in str(field.type))
_KEYS = ("old", "new", "pos", "part", "no_object", *(name.rstrip("_") for name in _SETS))


def read_phrasebook(path: Path = PHRASEBOOK) -> list[PhraseEntry]:
    """Read a file ``{"classes": {NAME: [WORD, ...]}, "entries": [{"old", "new", "pos", ...}]}``.

    In a condition "@NAME" stands for the words of a class.

    Raises:
        UserError: with the entry that is wrong.
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
    if max(map(len, ([w for w in each if w == SLOT] for each in (old, *new)))) > 1 or old[0] == SLOT:
        raise ValueError(f"at most one {SLOT} in an expression, and not at its beginning")
    if pos == "verb" and (bad := [each[0] for each in (old, *new) if not _is_base(each[0])]):
        raise ValueError(f"not the base form of a verb: {', '.join(bad)}")
    sets = {name: _words(row.get(name.rstrip("_"), ()), classes) for name in _SETS}
    return PhraseEntry(old, new, pos, part, no_object=bool(row.get("no_object", False)), **sets)


def _is_base(verb: str) -> bool:
    """Return whether this is no form of another verb; a verb that the dictionary lacks is inflected by rule."""
    return verb in (lemmas(verb, "v") or (verb,))


def _words(names: Any, classes: Mapping[str, list[str]]) -> frozenset[str]:
    if isinstance(names, str):
        raise ValueError(f"a condition is a list of words, got {names!r}")
    return frozenset(word for name in names for word in (classes[name[1:]] if name.startswith("@") else (name,)))
