"""Positions of clips, words and predicted moments."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hero_plugin.adapters.dropout import Dropout

POSITION_BASE = 10000
"""Ratio of the highest to the lowest frequency, nearly."""


def sines(angle: Tensor, width: int) -> Tensor:
    """Return sine and cosine of ``angle``, in radians, at width / 2 frequencies from 1 down: (...) -> (..., width)."""
    # Not the core's sinusoid: its exp(-i log 10000) rounds otherwise than this power, which upstream takes.
    exponent = 2 * torch.arange(width // 2, dtype=torch.float32, device=angle.device) / width
    angles = angle.unsqueeze(-1) / POSITION_BASE**exponent
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def span_sines(spans: Tensor, width: int) -> Tensor:
    """Encode moments: (..., 2) of (center, width) in [0, 1] -> (..., width), half for either number."""
    return sines(spans * 2 * math.pi, width // 2).flatten(-2)


class PositionEmbeddingSine(nn.Module):
    """Sinusoidal positions of clips: a clip's place among the real clips, scaled to (0, 2π]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode positions: x (B, L, D) is not read; mask (B, L), 1 where real -> (B, L, dim) in float32."""
        place = mask.cumsum(1, dtype=torch.float32)
        return sines(place / (place[:, -1:] + 1e-6) * 2 * math.pi, self.dim)


class TrainablePositionalEncoding(nn.Module):
    """Learned positions of words, added and normalised."""

    def __init__(self, max_length: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(max_length, dim)
        self.LayerNorm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Add positions and normalise: (B, L, D) -> (B, L, D).

        Raises:
            ValueError: L exceeds the table.
        """
        length, limit = x.shape[1], self.position_embeddings.num_embeddings
        if length > limit:
            raise ValueError(f"a query of {length} words is longer than max_q_l={limit}: raise it in the config")
        return self.dropout(self.LayerNorm(x + self.position_embeddings.weight[:length]))
