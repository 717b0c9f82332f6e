"""Filter by grammar: number, verb form, article, and what a verb takes after it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hero_plugin.integrations.data.records import Rewording
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.tools.vocab.english import TaggedQuery, article, forms, inflected, is_mass, lemma, lemmas
from hero_plugin.integrations.tools.vocab.meaning import WordNet
from hero_plugin.integrations.tools.vocab.swaps import SOMEBODY, Swap

_TO_VERB, _ING = frozenset({26, 28, 29, 32, 35}), frozenset({33})
_NO_OBJECT = frozenset({1, 2, 3, 4, 6, 7, 12, 13, 22, 23, 27})
_OBJECT = frozenset({8, 9, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 30, 31})
_COUNTED = frozenset(("these", "those", "many", "several", "few", "both", "two", "three", "four", "five", "six"))
_ONE = frozenset(("a", "an", "one", "another", "each", "every"))
_SINGULAR_NEXT = frozenset(("is", "was", "has", "does", "itself"))
_PLURAL_NEXT = frozenset(("are", "were", "have", "do", "that", "which", "who", "themselves"))


class AgreementFilter:
    """Turn down swaps that break number, verb form, article, or what a verb takes after it."""

    name = "agreement"

    def __init__(self, wordnet: WordNet | None) -> None:
        self._wordnet = wordnet

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if not isinstance(rewording, Swap):
            return _forms_differ(query, rewording)
        new = rewording.changes[0].new
        if rewording.curated:
            return self._number(query, rewording, new) if rewording.pos == "n" and new not in SOMEBODY else None
        if new in SOMEBODY:
            return self._pronoun(query, rewording)
        tag = "VB" if rewording.tag == "VBP" else rewording.tag
        if not _is_form(new, "NN" if new == rewording.new_base and tag == "NNS" and is_mass(new) else tag):
            return f"{new} is no {rewording.tag} form"
        if rewording.pos == "n":
            return self._noun(query, rewording, new)
        return self._verb(query, rewording) if rewording.pos == "v" else None

    @staticmethod
    def _pronoun(query: TaggedQuery, swap: Swap) -> str | None:
        if swap.tag != "NN" or query.words[swap.place] != swap.base:
            return "a pronoun for a plural"
        before = query.tags[swap.place - 1] if swap.place else ""
        counted = swap.place and query.words[swap.place - 1] in ("a", "an")
        if not counted and before[:2] in ("DT", "PR", "JJ", "CD", "NN"):
            return "a pronoun after a determiner or an adjective"
        after = query.tags[swap.place + 1] if swap.place + 1 < len(query.tags) else ""
        return "a pronoun before a noun or a pronoun" if after[:2] in ("NN", "PR") else None

    @staticmethod
    def _number(query: TaggedQuery, swap: Swap, new: str) -> str | None:
        """Return why a number is wrong: an uncounted noun for a counted plural, or with an article."""
        place, head = swap.place, new.split()[-1]
        phrase = _from_determiner(query, place)
        after = query.words[place + 1] if place + 1 < len(query.words) else ""
        is_plural = _looks_plural(head) if swap.curated else new != swap.new_base
        if swap.tag == "NNS" and not is_plural:  # a plural became a word that is not counted
            later = set(query.words[place + 1 :])
            if after in _PLURAL_NEXT or _COUNTED & set(phrase) or {"they", "them"} & later:
                return f"{new} is not a plural"
        elif swap.tag == "NN" and is_mass(head) and not is_mass(swap.base) and _ONE & set(phrase):
            return f"{new} takes no article"
        elif swap.curated and swap.tag == "NN" and _looks_plural(head) and after in _SINGULAR_NEXT:
            return f"{new} is a plural"
        return None

    def _noun(self, query: TaggedQuery, swap: Swap, new: str) -> str | None:
        if (reason := self._number(query, swap, new)) is not None:
            return reason
        place, head = swap.place, new.split()[-1]
        after = query.words[place + 1] if place + 1 < len(query.words) else ""
        if (
            swap.tag == "NN"
            and not is_mass(head)
            and is_mass(swap.base)
            and not ({"DT", "PRP$"} & set(query.tags[max(0, place - 3) : place]))
        ):
            return f"{new} needs an article"
        if after and not _sentence_break(query, place):
            bare = swap.tag == "NN" and query.tags[place + 1] in ("VB", "VBP") and "NN" in forms(after)
            if bare or query.tags[place + 1] in ("NN", "NNS", "?"):  # "car wash": no verb, or it would be "washes"
                return "part of a compound"
        if place and query.tags[place - 1] in ("NN", "NNS") and not _sentence_break(query, place - 1):
            return "part of a compound"
        return None

    def _verb(self, query: TaggedQuery, swap: Swap) -> str | None:
        if self._wordnet is None:
            return None
        senses = self._wordnet.senses(swap.new_base, "v")
        frames = frozenset().union(*(self._wordnet.frames(sense, swap.new_base) for sense in senses[:2]))
        after = query.tags[swap.place + 1] if swap.place + 1 < len(query.tags) else ""
        passive = swap.tag == "VBN" and swap.place and query.tags[swap.place - 1] == "AUX"
        if after == "TO" and query.tags[min(swap.place + 2, len(query.tags) - 1)] in ("VB", "VBP", "?"):
            needed = _TO_VERB
        elif after == "VBG":
            needed = _ING | _TO_VERB | _OBJECT
        elif after in ("DT", "PRP$", "PRP", "NN", "NNS", "JJ", "CD") or passive:
            needed = _OBJECT
        else:
            needed = _NO_OBJECT
        return None if frames & needed else f"{swap.new_base} is not used with what follows"

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"verb_frames": self._wordnet is not None}


def _from_determiner(query: TaggedQuery, place: int) -> list[str]:
    """Return the words before a noun, back to its determiner."""
    phrase = []
    for back in range(place - 1, max(-1, place - 4), -1):
        phrase.append(query.words[back])
        if query.tags[back] not in ("JJ", "NN", "CD", "VBN", "VBG"):
            break
    return phrase


def _looks_plural(noun: str) -> bool:
    """Return whether a noun looks plural: "garments", "gentlemen", but neither "attire" nor "footwear"."""
    return noun.endswith("s") or ("NNS" in forms(noun) and "NN" not in forms(noun))


def _is_form(word: str, tag: str) -> bool:
    known = forms(word.split()[-1])
    return tag in known or (tag == "JJ" and bool(known & {"JJ", "JJR"}))


def _sentence_break(query: TaggedQuery, place: int) -> bool:
    return any(mark in query.sentence[query.spans[place][1] : query.spans[place + 1][0]] for mark in ".,;:!?")


def _forms_differ(query: TaggedQuery, rewording: Rewording) -> str | None:
    """Return why a free rewording is wrong: one word for one word, in another form; or a wrong article."""
    for change in rewording.changes:
        old, new = tokenize(change.old), tokenize(change.new)
        if len(old) == len(new) == 1 and old[0] in query.words:
            tag = query.tags[query.words.index(old[0])]
            if tag in ("NNS", "VBZ", "VBG", "VBD", "VBN") and (known := forms(new[0])) and tag not in known:
                return f"{new[0]} is no {tag} form, as {old[0]} is"
    before = set(pairwise(query.words))
    for first, following in pairwise(tokenize(rewording.sentence)):
        if first in ("a", "an") and (first, following) not in before and first != article(following):
            return f"{first} {following}"
    return None


# Noun phrases of a query: where one ends, and what it is about.


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


# Form of a verb in a query, where its spelling leaves it open.


_HAVE = frozenset(("has", "have", "had", "having", "'ve"))
_BE = frozenset(("be", "am", "is", "are", "was", "were", "been", "being", "gets", "get", "got"))
_MODALS = ("can", "will", "would", "should", "could", "must", "does", "do", "did")
_ASK_BASE = frozenset(("to", "they", "you", "we", "i", "and", "then", *_MODALS))


def verb_form(query: TaggedQuery, place: int, base: str) -> str | None:
    """Return VB, VBZ, VBG, VBD or VBN; None if the word is no form of ``base``, or a passive one.

    "puts" can be one form only; "put" after "they" or "to" is the base form, after "person" the past.
    """
    word = query.words[place]
    if word != base and word in lemmas(word, "v") and not word.endswith("ed"):
        return None  # "lay" is a verb of its own besides the past of "lie"
    fitting = [tag for tag in ("VB", "VBZ", "VBG", "VBD", "VBN") if word in inflected(base, tag)]
    if not fitting:
        return None
    before = query.words[place - 1] if place else ""
    if before in ("also", "then", "just", "not") and place > 1:
        before = query.words[place - 2]
    if "VBN" in fitting and before in _BE:
        return None
    if "VBN" in fitting and before in _HAVE:
        return "VBN"
    if "VB" in fitting and "VBD" in fitting:
        return "VB" if before in _ASK_BASE or query.tags[place] in ("VB", "VBP") else "VBD"
    return "VBD" if "VBD" in fitting else fitting[0]
