"""Query features of the DETRs: a vector per word, looked up in a table or read from one file per query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.feature_bank import Storage, StoreBank
from hero_plugin.integrations.features import open_features, unit_length
from hero_plugin.integrations.problems import Problems
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.words import WordVectors

ARRAY = "last_hidden_state"
"""Name of the array in the published files: CLIP's vector of each token."""


class Queries(Protocol):
    """The words of queries as vectors."""

    @property
    def dim(self) -> int:
        """Return the width of a vector."""
        ...

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (B, L, dim) float32 with zeros for padding, and mask (B, L) bool."""
        ...


class WordQueries:
    """Word vectors from a table; zeros for a word that the table lacks, as in lighthouse.

    Any word of the table serves, whether a training sentence had it or not.
    """

    def __init__(
        self, vectors: WordVectors, tokenize: Callable[[str], list[str]], max_words: int, normalize: bool
    ) -> None:
        self.index, self.tokenize, self.max_words, self.dim = vectors.index, tokenize, max_words, vectors.dim
        rows = unit_length(vectors.vectors) if normalize else vectors.vectors
        self._table = np.concatenate([rows, np.zeros((1, self.dim), np.float32)]).astype(np.float32)

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


class QueryFiles:
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
        store = open_features(folder, max_clips=max_words, pooling="cut", normalize=normalize, array=ARRAY)
        problems = Problems()
        names: dict[str, str] = {}
        for record in records:
            known = [name for name in (f"qid{record.query_id}", record.query_id) if name in store]
            if known:
                names[record.query_id] = known[0]
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
