"""Filters that a rewording must pass, and the two about its words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from hero_plugin.integrations.vocab.english import zipf
from hero_plugin.integrations.vocab.query import TaggedQuery
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.vocab.swaps import Swap
from hero_plugin.integrations.vocab.tokenizers import Tokenizer
from hero_plugin.integrations.words import tokenize
from hero_plugin.open_vocabulary import unseen_words

__all__ = ["Filter", "KnownWordsFilter", "UnseenFilter", "first_reason"]


class Filter(Protocol):
    """A test that a rewording must pass.

    Attributes:
        name: under which the manifest counts it.
    """

    name: str

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""


class UnseenFilter:
    """Turn down changes that bring no word which training lacks: the result is open-vocabulary by construction."""

    name = "unseen"

    def __init__(self, vocabulary: Collection[str], tokenizer: Tokenizer) -> None:
        self._vocabulary, self._tokenizer = vocabulary, tokenizer

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if isinstance(rewording, Swap):
            new = self._tokenizer(rewording.changes[0].new)
            return None if unseen_words(new, self._vocabulary) else "the new word is in the training vocabulary"
        before = set(self._tokenizer(query.sentence))
        new = [word for word in self.words(rewording.sentence) if word not in before]
        return None if new else "no new word that the training vocabulary lacks"

    def words(self, sentence: str) -> tuple[str, ...]:
        """Return the unseen words of a sentence."""
        return unseen_words(self._tokenizer(sentence), self._vocabulary)

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"training_words": len(self._vocabulary)}


class KnownWordsFilter:
    """Turn down new words that people hardly use."""

    name = "known words"

    def __init__(self, frequency: float = 2.5) -> None:
        self._frequency = frequency

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if isinstance(rewording, Swap) and rewording.curated:
            return None
        old = set(query.words)
        for change in rewording.changes:
            for word in tokenize(change.new):
                if word not in old and zipf(word) < self._frequency:
                    return f"{word} is too rare or no word"
        return None

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"zipf_frequency": self._frequency}


def first_reason(filters: Sequence[Filter], query: TaggedQuery, rewording: Rewording) -> tuple[str, str] | None:
    """Return the name of the first filter that turns a rewording down, and why; None if all let it pass."""
    for each in filters:
        reason = each.reason(query, rewording)
        if reason is not None:
            return each.name, reason
    return None
