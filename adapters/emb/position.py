"""Sinusoidal positions of clips and words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_plugin.hem import sinusoid


class CosinePosition(nn.Module):
    """Sinusoidal positions, added; the table is the buffer ``pe`` (max_pos_len, dim)."""

    pe: Tensor

    def __init__(self, dim: int, max_pos_len: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoid(max_pos_len, dim, torch.empty(0, dtype=torch.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions: (..., L, D) -> (..., L, D).

        Raises:
            ValueError: L exceeds the table.
        """
        length, limit = x.shape[-2], self.pe.shape[0]
        if length > limit:
            raise ValueError(
                f"a sequence of {length} is longer than max_pos_len={limit}: raise it in the config, "
                "or pool the features to fewer clips"
            )
        return x + self.pe[:length]
