"""The words of queries as vectors: from a word table, or from a file for each query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from hero_plugin.integrations.data.feature_bank import Storage, StoreBank
from hero_plugin.integrations.data.features import FeatureStore, open_features, unit_length
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import WordVectors
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import Problems
from hero_plugin.integrations.training.dataset import Tokenize

ARRAY = "last_hidden_state"
"""Name of the array in the published files: CLIP's vector of each token."""


class Queries(Protocol):
    """The words of queries as vectors."""

    dim: int
    """Width of a vector."""

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (B, L, dim) float32 with zeros for padding, and mask (B, L) bool."""
        ...


class WordQueries(Queries):
    """Word vectors from a table; zeros for a word that the table lacks, as in lighthouse.

    Any word of the table serves, whether a training sentence had it or not.

    Args:
        vectors: The table.
        tokenize: Splits a sentence into words.
        max_words: Longer queries are cut.
        normalize: Scale each word's vector to length 1.
        source: The file of the table, where more words are.
        unknown: (dim,) what a word gets that the table lacks, in place of zeros.
    """

    def __init__(
        self,
        vectors: WordVectors,
        tokenize: Tokenize,
        max_words: int,
        normalize: bool,
        source: Path | None = None,
        unknown: np.ndarray | None = None,
    ) -> None:
        self.index, self.tokenize, self.max_words, self.dim = vectors.index, tokenize, max_words, vectors.dim
        self.normalize, self.source = normalize, source
        rows = unit_length(vectors.vectors) if normalize else vectors.vectors
        last = np.zeros(self.dim) if unknown is None else unknown
        self._table = np.concatenate([rows, last[None]]).astype(np.float32)

    def vector(self, word: str) -> np.ndarray:
        """Return the vector of a word, (dim,) float32."""
        return self._table[self.index.get(word, -1)]

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        rows = [
            [self.index.get(word, -1) for word in self.tokenize(record.sentence)[: self.max_words]]
            for record in records
        ]
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        vectors = np.zeros((*mask.shape, self.dim), np.float32)
        vectors[mask] = self._table[np.concatenate(rows)]
        return vectors, mask


def open_queries(folder: Path, max_words: int, normalize: bool) -> FeatureStore:
    """Open a folder of vectors per query: (words, dim) by the name of a file without its ending."""
    return open_features(folder, max_clips=max_words, pooling="cut", normalize=normalize, array=ARRAY, rows="words")


def file_of(query_id: str, store: FeatureStore) -> str | None:
    """Return the name of a query's file, without its ending; None if there is none."""
    return next((name for name in (f"qid{query_id}", query_id) if name in store), None)


class QueryFiles(Queries):
    """Each query's vectors from ``qidQUERY.npz``, or ``QUERY.npz``: the published features of QVHighlights."""

    def __init__(
        self,
        folder: Path,
        records: Sequence[Record],
        *,
        max_words: int,
        normalize: bool,
        storage: Storage,
        gigabytes: float,
        screen: Screen | None = None,
    ) -> None:
        store = open_queries(folder, max_words, normalize)
        problems = Problems()
        names: dict[str, str] = {}
        sentences: dict[str, str] = {}
        for record in records:
            if (other := sentences.setdefault(record.query_id, record.sentence)) != record.sentence:
                what = f"{other!r} in one place, {record.sentence!r} in another: whose features are the file's?"
                problems.add(f"query {record.query_id}", what, "give each its own id in all annotations")
            if name := file_of(record.query_id, store):
                names[record.query_id] = name
            else:
                where = f"query {record.query_id}"
                problems.add(where, f"no qid{record.query_id}.npz in {folder}", "add it, or remove the query")
        problems.raise_if_any()
        with (screen or Screen(quiet=True)).working("reading queries", len(names)) as progress:
            self.bank = StoreBank(store, names.values(), storage=storage, gigabytes=gigabytes, progress=progress)
        self.dim, self._names = store.dim, names

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        return self.bank.batch([self.bank.rows[self._names[record.query_id]] for record in records])
