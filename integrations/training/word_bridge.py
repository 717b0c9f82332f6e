"""The bridge from words of a table to those that a run's training had."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hero_plugin import Bridge
from hero_plugin.integrations.data.words import Vocabulary, WordVectors


def bridge_to(words: Sequence[str], vectors: Tensor, known: Vocabulary) -> Bridge:
    """Return the bridge to words that training had, given their vectors (words, dim)."""
    return Bridge(vectors, torch.tensor([known.counts.get(word, 1) for word in words]))


def mixtures(words: Sequence[str], vectors: WordVectors, known: Vocabulary) -> list[dict[str, float]]:
    """Return what each of ``words``, which training never had, is mixed of: shares by trained word, greatest first.

    A word that is near no trained one stays itself: its mixture is empty.
    """
    trained = vectors.only({word for word in known.words if known.is_trained([word])[0]})
    bridge = bridge_to(trained.words, torch.from_numpy(trained.vectors), known)
    shares, rows = bridge.shares(torch.from_numpy(vectors.vectors[[vectors.index[word] for word in words]]))
    return [
        {trained.words[row]: share for share, row in zip(*pair, strict=True) if share}
        for pair in zip(shares.tolist(), rows.tolist(), strict=True)
    ]
