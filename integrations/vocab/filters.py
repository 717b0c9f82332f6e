"""What a rewording must pass. Each filter says why it turns one down, or None; the first two are here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from hero_plugin.integrations.vocab.english import zipf
from hero_plugin.integrations.vocab.query import Query
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.vocab.swaps import Swap
from hero_plugin.integrations.vocab.tokenizers import Tokenizer
from hero_plugin.integrations.words import tokenize
from hero_plugin.open_vocabulary import unseen_words

__all__ = ["Filter", "KnownWords", "Unseen", "first_reason"]


class Filter(Protocol):
    """name: as the manifest counts it."""

    name: str

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        """Why not, in a few words; None lets the rewording pass."""

    def describe(self) -> dict[str, Any]:
        """Its settings, for the manifest."""


class Unseen:
    """Open-vocabulary by construction: each change brings a word that training never had."""

    name = "unseen"

    def __init__(self, vocabulary: Collection[str], tokenizer: Tokenizer) -> None:
        self._vocabulary, self._tokenizer = vocabulary, tokenizer

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        if isinstance(rewording, Swap):
            new = self._tokenizer(rewording.changes[0].new)
            return None if unseen_words(new, self._vocabulary) else "the new word is in the training vocabulary"
        before = set(self._tokenizer(query.sentence))
        new = [word for word in self.words(rewording.sentence) if word not in before]
        return None if new else "no new word that the training vocabulary lacks"

    def words(self, sentence: str) -> tuple[str, ...]:
        """The unseen words of a sentence."""
        return unseen_words(self._tokenizer(sentence), self._vocabulary)

    def describe(self) -> dict[str, Any]:
        return {"training_words": len(self._vocabulary)}


class KnownWords:
    """New words are words that people use."""

    name = "known words"

    def __init__(self, frequency: float = 2.5) -> None:
        self._frequency = frequency

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        if isinstance(rewording, Swap) and rewording.curated:
            return None
        old = set(query.words)
        for change in rewording.changes:
            for word in tokenize(change.new):
                if word not in old and zipf(word) < self._frequency:
                    return f"{word} is too rare or no word"
        return None

    def describe(self) -> dict[str, Any]:
        return {"zipf_frequency": self._frequency}


def first_reason(filters: Sequence[Filter], query: Query, rewording: Rewording) -> tuple[str, str] | None:
    """(the filter that turns a rewording down, why), or None."""
    for each in filters:
        reason = each.reason(query, rewording)
        if reason is not None:
            return each.name, reason
    return None
