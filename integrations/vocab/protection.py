"""Filter that protects words of a query which no thesaurus should touch."""

from __future__ import annotations

from typing import Any

from hero_plugin.integrations.vocab.query import TaggedQuery
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.vocab.stop_words import FIXED_VERBS, NEVER_SWAPPED, PARTICLES
from hero_plugin.integrations.vocab.swaps import Swap
from hero_plugin.integrations.vocab.wordnet import WordNet

__all__ = ["ProtectedFilter"]

_ENDS = ("ing", "ish", "y", "fall", "line", "er", "ation")


class ProtectedFilter:
    """Turn down swaps of light verbs, parts of fixed expressions, names, and verbs with a particle."""

    name = "protected"

    def __init__(self, wordnet: WordNet | None) -> None:
        self._wordnet = wordnet

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if not isinstance(rewording, Swap) or rewording.curated:
            return None
        place, word = rewording.place, query.words[rewording.place]
        if rewording.base in NEVER_SWAPPED or (rewording.pos == "v" and rewording.base in FIXED_VERBS):
            return "a word of too many meanings"
        if _made_from(rewording.base, rewording.new_base):
            return "made from the old word"
        others = [each for each in query.words if each != word and len(each) > 3]
        if any(each.startswith(rewording.new_base) or rewording.new_base.startswith(each) for each in others):
            return "says a word twice"
        if place and query.sentence[query.spans[place][0]].isupper():
            return "a name"
        if rewording.pos == "v" and (particle := self._particle(query, place, rewording.base)):
            return f"goes with {particle}"
        if self._wordnet is not None and (phrase := self._phrase(query, place, word, rewording.base)):
            return f"part of {phrase}"
        return None

    def _particle(self, query: TaggedQuery, place: int, base: str) -> str | None:
        """Return a particle that the verb may belong with: "picks the phone up"."""
        for distance, word in enumerate(query.words[place + 1 : place + 7], 1):
            if word in PARTICLES and (
                distance == 1 or self._wordnet is None or self._wordnet.knows(f"{base} {word}", "v")
            ):
                return word
            if query.tags[place + distance][:2] in ("VB", "CC", "AU"):
                return None
        return None

    def _phrase(self, query: TaggedQuery, place: int, word: str, base: str) -> str | None:
        """Return an expression of WordNet, two to four words long, that includes this word."""
        assert self._wordnet is not None
        for length in (4, 3, 2):
            for start in range(max(0, place - length + 1), min(place, len(query.words) - length) + 1):
                words = list(query.words[start : start + length])
                phrases = {" ".join(words), " ".join((*words[:-1], base if start + length - 1 == place else words[-1]))}
                phrases.add(" ".join(base if start + k == place else w for k, w in enumerate(words)))
                for phrase in sorted(phrases):
                    if self._wordnet.knows(phrase) or self._wordnet.knows(phrase.replace(" ", "-")):
                        return phrase
        return None

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"expressions": self._wordnet is not None}


def _made_from(old: str, new: str) -> bool:
    """Return whether one word is made from the other, and so rarely means the same: floor, flooring; red, reddish."""
    if new.endswith("ish") and not old.endswith("ish"):
        return True
    return old in new.split() or (new.startswith(old) and new.endswith(_ENDS))
