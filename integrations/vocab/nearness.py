"""Filters by word vectors: near to the original, and to no other moment's query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hero_plugin.integrations.vocab.meaning import WordSimilarity, content
from hero_plugin.integrations.vocab.query import TaggedQuery
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.vocab.swaps import Swap
from hero_plugin.integrations.words import tokenize

__all__ = ["CollisionFilter", "SimilarityFilter"]


class SimilarityFilter:
    """Turn down new words that word vectors call another meaning, or that do not fit the context.

    Args:
        meaning: the word vectors.
        context: returns the vector of a query without one word.
        word: least cosine of a word and its synonym.
        rarer: added to that for a sense that is not the most common.
        hypernym: least cosine of a word and its hypernym.
        fit: how much worse than the old word the new one may fit the context.
        sentence: least cosine of a sentence and its paraphrase.
    """

    name = "similarity"

    def __init__(
        self,
        meaning: WordSimilarity,
        context: Callable[[TaggedQuery, str], Any],
        *,
        word: float = 0.61,
        rarer: float = 0.07,
        hypernym: float = 0.65,
        fit: float = 0.2,
        sentence: float = 0.8,
    ) -> None:
        self._meaning, self._context = meaning, context
        self._word, self._hypernym, self._fit, self._sentence = word, hypernym, fit, sentence
        self._rarer = rarer

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if not isinstance(rewording, Swap):
            near = self._meaning.sentence_similarity(content(query.words), content(tokenize(rewording.sentence)))
            return None if near is not None and near >= self._sentence else f"another sentence ({_shown(near)})"
        if rewording.curated:
            blind = [word for word in tokenize(rewording.changes[0].new) if not self._meaning.knows(word)]
            return f"no vector for {', '.join(blind)}" if blind else None
        near = self.of(rewording)
        least = self._word if rewording.relation == "synonym" else self._hypernym
        if near is None or near < least + (self._rarer if rewording.rank else 0.0):
            return f"the words are not close ({_shown(near)})"
        context = self._context(query, query.words[rewording.place])
        if context is not None and (old := self._meaning.mean([rewording.base])) is not None:
            new = self._meaning.mean(rewording.new_base.split())
            if new is not None and float(context @ new) < float(context @ old) - self._fit:
                return "does not fit the context"
        return None

    def of(self, swap: Swap) -> float | None:
        """Return the cosine of the two words, as they stand or as lemmas, whichever is closer."""
        pairs = ((swap.base, swap.new_base), (swap.changes[0].old.lower(), swap.changes[0].new))
        return max((near for pair in pairs if (near := self._meaning.similarity(*pair)) is not None), default=None)

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {
            "synonym": self._word,
            "rarer_sense": self._rarer,
            "hypernym": self._hypernym,
            "context": self._fit,
            "sentence": self._sentence,
        }


def _shown(value: float | None) -> str:
    return "no vector" if value is None else f"{value:.2f}"


class CollisionFilter:
    """Turn down wordings that describe another moment of the video: too close to another query's words."""

    name = "collision"

    def __init__(self, meaning: WordSimilarity) -> None:
        self._meaning = meaning

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        words = tokenize(rewording.sentence)
        own = self._meaning.sentence_similarity(content(query.words), content(words)) or 0.0
        for other in query.siblings:
            if other.moments == query.record.moments:
                continue
            theirs = tokenize(other.sentence)
            if set(theirs) == set(words):
                return "another moment's query says the same"
            if theirs != list(query.words):
                near = self._meaning.sentence_similarity(content(theirs), content(words))
                if near is not None and near > own:
                    return "nearer to another moment's query"
        return None

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {}
