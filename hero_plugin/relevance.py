"""A light relevance head on the pair {Q_i, V_i}: no pass through the base."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.checks import expect_shape


class PairRelevance(nn.Module):
    """Per-clip relevance logits from a level's words and its filtered clips (``relevance="pair"``).

    The query is the mean of its real words; ``RS = w · relu(A v ⊙ B q + C v) + b`` for every clip ``v``.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.clip = nn.Linear(dim, 2 * dim)
        self.word = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1)

    def forward(self, video: Tensor, levels: Tensor, query_mask: Tensor) -> Tensor:
        """video: (N, B, T, D); levels: (N, B, L, D); query_mask: (B, L) -> logits (N, B, T)."""
        batch, length = query_mask.shape
        expect_shape("levels", levels, "N B L D", (None, batch, length, self.dim))
        expect_shape("video", video, "N B T D", (levels.shape[0], batch, None, self.dim))
        real = query_mask.bool().unsqueeze(-1)
        count = real.sum(-2).clamp(min=1)
        sentence = levels.masked_fill(~real, 0.0).sum(-2) / count
        compared, alone = torch.chunk(self.clip(video), 2, dim=-1)
        return self.score(F.relu(compared * self.word(sentence).unsqueeze(-2) + alone)).squeeze(-1)
