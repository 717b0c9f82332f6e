"""Meaning by word vectors: of words, of sentences, and of a word's senses in a query."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from hero_plugin.integrations.vocab.query import TaggedQuery
from hero_plugin.integrations.vocab.tagging import RuleTagger
from hero_plugin.integrations.vocab.wordnet import WordNet
from hero_plugin.integrations.words import WordVectors, tokenize

__all__ = ["SenseJudge", "WordSimilarity"]

_SIBLING = 0.4  # what a word of another query of the same video counts beside one of the query itself
_SHARPNESS = 14.0  # of the context's say in the choice of a sense
_EMPTY = frozenset({"person", "people", "man", "woman", "video", "camera"})
"""Words that every other query has, whatever it is about."""


class WordSimilarity:
    """Cosines between words and between sentences, from a table of word vectors."""

    def __init__(self, vectors: WordVectors) -> None:
        rows = vectors.vectors.astype(np.float32)
        self._unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        centred = self._unit - self._unit.mean(axis=0)
        self._centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
        self._index = vectors.index

    def knows(self, word: str) -> bool:
        """Return whether every word of an expression has a vector."""
        return all(part in self._index for part in word.split())

    def similarity(self, one: str, other: str) -> float | None:
        """Return the cosine of two words (of expressions: of their words' mean); None if one has no vector."""
        if not (self.knows(one) and self.knows(other)):
            return None
        return float(_unit(self._mean(self._unit, one.split())) @ _unit(self._mean(self._unit, other.split())))

    def sentence_similarity(self, one: Iterable[str], other: Iterable[str]) -> float | None:
        """Return the cosine of two sentences' content words, each sentence the mean of its words."""
        left, right = self.mean(one), self.mean(other)
        return None if left is None or right is None else float(left @ right)

    def mean(self, words: Iterable[str], weights: Iterable[float] | None = None) -> np.ndarray | None:
        """Return the unit mean (dim,) of words less what all words share; None if none has a vector."""
        pairs = zip(words, weights, strict=True) if weights is not None else ((word, 1.0) for word in words)
        total, any_word = np.zeros(self._centred.shape[1], np.float32), False
        for word, weight in pairs:
            if (row := self._index.get(word)) is not None:
                total += weight * self._centred[row]
                any_word = True
        return _unit(total) if any_word else None

    def _mean(self, table: np.ndarray, words: list[str]) -> np.ndarray:
        return table[[self._index[word] for word in words]].mean(axis=0)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def content(words: Iterable[str]) -> list[str]:
    """Return the words of the open classes: nouns, verbs, adjectives, and unclear ones."""
    words = list(words)
    return [word for word, tag in zip(words, _open_classes(tuple(words)), strict=True) if tag]


@lru_cache(maxsize=50_000)
def _open_classes(words: tuple[str, ...]) -> tuple[bool, ...]:
    return tuple(tag[:1] in "NVJ?" for tag in RuleTagger().tag(words))


class SenseJudge:
    """The likely sense of a word in a query: its frequency in text times how well its gloss fits the video's queries.

    Args:
        wordnet: without it, only contexts are available.
        meaning: the word vectors.
    """

    def __init__(self, wordnet: WordNet | None, meaning: WordSimilarity) -> None:
        self.wordnet, self.meaning = wordnet, meaning
        self._contexts: dict[tuple[str, str], Any] = {}

    def chances(self, query: TaggedQuery, word: str, base: str, pos: str) -> tuple[float, ...]:
        """Return the probability of each sense of ``base`` in this query, in the order of ``WordNet.senses``."""
        assert self.wordnet is not None
        shares = np.array(self.wordnet.shares(base, pos))
        if len(shares) < 2:
            return tuple(shares.tolist())
        context = self.context(query, word)
        if context is None:
            return tuple(shares.tolist())
        fits = np.array([self._fit(context, base, pos, rank) for rank in range(len(shares))])
        weights = (shares + 0.02) * np.exp(_SHARPNESS * (fits - fits.max()))
        return tuple((weights / weights.sum()).tolist())

    def context(self, query: TaggedQuery, without: str) -> np.ndarray | None:
        """Return the mean (dim,) of the query's and its video's other queries' words, one word left out."""
        key = (query.record.query_id, without)
        if key not in self._contexts:
            if len(self._contexts) > 1000:
                self._contexts.clear()
            own = [word for word in content(query.words) if word != without and word not in _EMPTY]
            others = [word for s in query.siblings for word in content(tokenize(s.sentence))]
            others = [word for word in others if word != without and word not in _EMPTY]
            weights = [1.0] * len(own) + [_SIBLING] * len(others)
            self._contexts[key] = self.meaning.mean(own + others, weights)
        return self._contexts[key]

    def _fit(self, context: np.ndarray, base: str, pos: str, rank: int) -> float:
        vector = self._gloss(base, pos, rank)
        return 0.0 if vector is None else float(context @ vector)

    @lru_cache(maxsize=50_000)  # noqa: B019 (lives as long as the command)
    def _gloss(self, base: str, pos: str, rank: int) -> np.ndarray | None:
        """Return the mean (dim,) of the words that define a sense, its examples and its neighbours in WordNet."""
        assert self.wordnet is not None
        sense = self.wordnet.senses(base, pos)[rank]
        near = [name for s in (sense, *sense.hypernyms()) for name in s.lemma_names()]
        text = " ".join((sense.definition(), *sense.examples(), *near)).replace("_", " ")
        return self.meaning.mean(word for word in content(tokenize(text)) if word != base)
