"""Highlight layer and proposal ranker, the two heads beside the predictor."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.emb.elastic import confident_proposals
from hero_plugin.adapters.emb.layers import Conv1D, mask_logits
from hero_plugin.adapters.emb.losses import highlight_loss, ranking_loss


class HighLightLayer(nn.Module):
    """Head that gives every clip its probability of being inside the moment."""

    compute_loss = staticmethod(highlight_loss)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1d = Conv1D(dim, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Score clips: x (B, T, D), mask (B, T) -> (B, T) in [0, 1], 0 at padding."""
        return mask_logits(self.conv1d(x).squeeze(2), mask).sigmoid()


class ProposalRanker(nn.Module):
    """Head that convolves the map of proposals and gives each its probability of being a good one."""

    topk_confident = staticmethod(confident_proposals)
    compute_loss = staticmethod(ranking_loss)

    def __init__(self, dim: int, kernel_size: int = 3, num_layers: int = 4) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2) for _ in range(num_layers)
        )
        self.predictor = nn.Conv2d(dim, 1, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Score proposals: x (B, N·N, D), mask (B, N·N) -> (B, N·N) in [0, 1], 0 where the mask is."""
        size = math.isqrt(mask.shape[1])
        if size * size != mask.shape[1]:
            raise ValueError(f"proposals must fill a square map, got {mask.shape[1]} of them")
        plane = x.unflatten(1, (size, size)).permute(0, 3, 1, 2)
        real = mask.to(x.dtype).view(-1, 1, size, size)
        for encoder in self.encoders:
            plane = F.relu(encoder(plane * real)) * neighbour_weight(real, encoder)
        logits = self.predictor(plane).flatten(1)
        return mask_logits(logits, mask).sigmoid()


def neighbour_weight(real: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return one over the number of valid entries a convolution sees, 0 where it sees none: (B, 1, N, N)."""
    counts = F.conv2d(real, real.new_ones(1, 1, *conv.kernel_size), padding=conv.padding).round()
    return torch.where(counts > 0, 1.0 / counts.clamp(min=1.0), 0.0)
