"""The bridge from what training never had to what a run's training had: words by name, tokens by their vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hero_plugin import Bridge
from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Vocabulary, WordVectors
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.detr import DetrTrainConfig
from hero_plugin.integrations.training.detr_batches import Queries, file_of, open_queries

TOKENS = 12_288
"""Tokens of training queries that the bridge is made of: three times those that it remembers."""


def mixtures(words: Sequence[str], vectors: WordVectors, known: Vocabulary) -> list[dict[str, float]]:
    """Return what each of ``words``, which training never had, is mixed of: shares by trained word, greatest first.

    A word that is near no trained one stays itself: its mixture is empty.
    """
    trained = vectors.only(known.trained_words())
    bridge = Bridge(torch.from_numpy(trained.vectors), torch.tensor(known.counts_of(trained.words)))
    shares, rows = bridge.shares(torch.from_numpy(vectors.vectors[[vectors.index[word] for word in words]]))
    return [
        {trained.words[row]: share for share, row in zip(*pair, strict=True) if share}
        for pair in zip(shares.tolist(), rows.tolist(), strict=True)
    ]


class BridgedTokens(Queries):
    """Queries whose tokens are led to training's by ``Bridge.of_tokens``."""

    def __init__(self, queries: Queries, bridge: Bridge) -> None:
        self.queries, self.bridge, self.dim = queries, bridge, queries.dim

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        vectors, mask = self.queries.batch(records)
        vectors[mask] = self.bridge(torch.from_numpy(vectors[mask])).numpy()
        return vectors, mask


def training_tokens(trained: DetrTrainConfig) -> Tensor:
    """Return vectors (M, dim) of tokens of a run's training queries, drawn by query, read from their files.

    Raises:
        UserError: The files of the training queries are not there.
    """
    assert trained.annotations_train is not None and trained.query_features is not None
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
