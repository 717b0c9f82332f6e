"""Building blocks of EMB."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.attention import LOWEST
from hero_plugin.adapters.dropout import Dropout


def mask_bias(mask: Tensor) -> Tensor:
    """Return the bias that shuts masked positions out: 0 where ``mask`` is 1, -1e30 where it is 0.

    float32 at least, so that half-precision logits are promoted rather than overflown. Finite, so that a
    row with nothing to attend to becomes the plain average, with gradients, as in upstream.
    """
    return (1.0 - mask.float()) * LOWEST


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Return ``logits`` where ``mask`` is 1, about -1e30 elsewhere. The shapes broadcast."""
    return logits + mask_bias(mask)


class Conv1D(nn.Module):
    """Linear layer over the last axis, with its weight where upstream's convolution of width one has it."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(in_dim, out_dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Project: (..., in_dim) -> (..., out_dim)."""
        return F.linear(x, self.weight, self.conv1d.bias)

    @property
    def weight(self) -> Tensor:
        """The matrix (out_dim, in_dim)."""
        return self.conv1d.weight.squeeze(-1)


class VisualProjection(nn.Module):
    """Projection of video features to the model's width."""

    def __init__(self, visual_dim: int, dim: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.drop = Dropout(drop_rate)
        self.linear = Conv1D(visual_dim, dim)

    def forward(self, visual_features: Tensor) -> Tensor:
        """Project: (B, T, visual_dim) -> (B, T, dim)."""
        return self.linear(self.drop(visual_features))
