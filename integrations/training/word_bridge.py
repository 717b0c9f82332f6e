"""The bridge from what training never had to what a run's training had: words by place, tokens by their vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hero_plugin import Bridge
from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.features import unit_length
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Vocabulary, WordVectors, load_word_vectors
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.dataset import Tokenize
from hero_plugin.integrations.training.queries import Queries, WordQueries, file_of, open_queries

TOKENS = 12_288
"""Tokens of training queries that the bridge is made of: three times those that it remembers."""
NEAREST = 0.1
"""The lowest cosine to a trained word that is trusted, beside what fits the place; chosen on val's rewordings."""


class BridgedWords(Queries):
    """Queries whose words that training never had are mixtures of those that it had, by meaning and by place.

    Args:
        queries: Any words as vectors.
        known: How often training said which words, and beside which.
        trained: Vectors of the words that it had, scaled as those of ``queries``.
    """

    def __init__(self, queries: WordQueries, known: Vocabulary, trained: WordVectors) -> None:
        self.queries, self.dim, self.known, self.trained = queries, queries.dim, known, trained
        counts = torch.tensor(known.counts_of(trained.words))
        self._bridge = Bridge(torch.from_numpy(trained.vectors), counts, nearest=NEAREST)
        self._had = known.trained_words()

    @classmethod
    def of_table(
        cls,
        vectors: WordVectors,
        tokenize: Tokenize,
        known: Vocabulary,
        max_words: int,
        unknown: np.ndarray | None = None,
    ) -> BridgedWords:
        """Return those of one table, which has the trained words and the new ones; arguments as ``WordQueries``'s."""
        queries = WordQueries(vectors, tokenize, max_words, normalize=False, unknown=unknown)
        return cls(queries, known, vectors.only(known.trained_words()))

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        vectors, mask = self.queries.batch(records)
        sentences = [self.queries.tokenize(record.sentence) for record in records]
        unseen = [(row, place) for row, sentence in enumerate(sentences) for place in self._unseen(sentence)]
        if unseen:
            at = tuple(np.transpose(unseen))
            expected = torch.stack([self._expected(sentences[row], place) for row, place in unseen])
            vectors[at] = self._bridge(torch.from_numpy(vectors[at]), expected).numpy()
        return vectors, mask

    def read_as(self, sentence: str) -> list[tuple[str, dict[str, float]]]:
        """Return each unseen word of a sentence, and what it is mixed of: shares by trained word, greatest first.

        A word without a share stays itself.
        """
        words, found = self.queries.tokenize(sentence), []
        for place in self._unseen(words):
            vector = torch.from_numpy(self.queries.vector(words[place]))
            shares, rows = self._bridge.shares(vector, self._expected(words, place))
            mixed = zip(shares.tolist(), rows.tolist(), strict=True)
            found.append((words[place], {self.trained.words[row]: share for share, row in mixed if share}))
        return found

    def examples(self, sentences: Iterable[str], most: int) -> list[str]:
        """Return a line for each of the first ``most`` sentences with unseen words: what these are mixed of, mainly."""
        lines = []
        for sentence in dict.fromkeys(sentences):
            parts = []
            for word, mixture in self.read_as(sentence):
                main = [f"{had} {share:.1f}" for had, share in mixture.items() if share >= 0.05]
                parts.append(f"{word} -> {', '.join(main) or 'itself'}")
            if parts:
                lines.append(f"{sentence}: {'; '.join(parts)}")
            if len(lines) == most:
                break
        return lines

    def _unseen(self, words: Sequence[str]) -> list[int]:
        """Return the places, of those that are read, of words that have a vector and that training never had."""
        read = enumerate(words[: self.queries.max_words])
        return [place for place, word in read if word not in self._had and word in self.queries.index]

    def _expected(self, words: Sequence[str], place: int) -> Tensor:
        """Return how much each trained word is expected at a place: (trained,) float32."""
        expected = np.zeros(len(self.trained), np.float32)
        for word, more in self.known.contexts.expected(words, place, self.known.counts).items():
            if word in self.trained:
                expected[self.trained.index[word]] = more
        return torch.from_numpy(expected)


def bridged_words(queries: Queries, known: Vocabulary) -> BridgedWords:
    """Return the words of a table, those that training never had as mixtures of those that it had.

    Raises:
        UserError: They are not of a table, or there is none to read the trained words from.
    """
    if not isinstance(queries, WordQueries):
        raise UserError("--bridge needs a table of word vectors, or a run that was trained on a file per query")
    if queries.source is None:
        raise UserError("--bridge needs the word table, and these queries came without one: give --words")
    trained = load_word_vectors(queries.source, known.trained_words())
    if not len(trained):
        raise UserError(f"{queries.source}: has none of the words of the run's training; give --words its word table")
    if queries.normalize:
        trained = replace(trained, vectors=unit_length(trained.vectors))
    return BridgedWords(queries, known, trained)


class BridgedTokens(Queries):
    """Queries whose tokens are led to training's by ``Bridge.of_tokens``."""

    def __init__(self, queries: Queries, bridge: Bridge) -> None:
        self.queries, self.bridge, self.dim = queries, bridge, queries.dim

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        vectors, mask = self.queries.batch(records)
        vectors[mask] = self.bridge(torch.from_numpy(vectors[mask])).numpy()
        return vectors, mask


def training_tokens(trained: Any) -> Tensor:
    """Return vectors (M, dim) of tokens of the training queries of a DETR's run, drawn by query, read from their files.

    Raises:
        UserError: The files of the training queries are not there.
    """
    wanted = "--bridge remembers tokens of the run's training queries"
    if not trained.query_features.is_dir():
        raise UserError(f"{wanted}, whose files were in {trained.query_features}: no such folder")
    records = read_annotations(trained.annotations_train, durations=trained.durations, on_broken=trained.on_broken)
    store = open_queries(trained.query_features, trained.max_words, trained.normalize_words)
    tokens: list[np.ndarray] = []
    count = 0
    for place in np.random.default_rng(0).permutation(len(records)):
        if (name := file_of(records[place].query_id, store)) is None:
            raise UserError(f"{wanted}: no qid{records[place].query_id}.npz in {trained.query_features}")
        tokens.append(store[name])
        count += len(tokens[-1])
        if count >= TOKENS:
            break
    return torch.from_numpy(np.concatenate(tokens))
