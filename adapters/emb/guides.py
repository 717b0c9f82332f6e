"""Guided attention: queries carry what lies before and after a clip, or at a proposal's ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.dropout import Dropout
from hero_plugin.adapters.emb.attention import (
    NORM_EPSILON,
    AttentionLayer,
    CrossAttentionBlock,
    SelfAttentionBlock,
    pair_mask,
)
from hero_plugin.adapters.emb.proposals import cell_max
from hero_plugin.adapters.emb.running import max_after, max_before

CONTENT_KERNEL = 7
BOUND_SCALE = 8


def surrounding_max(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each real position the maximum over the real ones before it and over those after it.

    One running maximum each way: B·T·D values where a maximum over pairs of positions needs B·T·T·D.

    Args:
        x: (B, T, D).
        mask: (B, T).

    Returns:
        Two (B, T, D), zero where there is none and at padding.
    """
    real = mask.bool().unsqueeze(-1)
    values = x.masked_fill(~real, torch.finfo(x.dtype).min)
    before, after = max_before(values), max_after(values)
    count = real.long().cumsum(dim=1)
    has_before, has_after = count > 1, count < count[:, -1:]
    return before.masked_fill(~(real & has_before), 0.0), after.masked_fill(~(real & has_after), 0.0)


class GuideConvolution(nn.Module):
    """Convolution of (before, after, own) per channel over neighbouring positions, then over channels."""

    def __init__(self, dim: int, kernel_size: int, drop_rate: float) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(
            nn.Conv2d(dim, dim, (kernel_size, 3), groups=dim, padding=(kernel_size // 2, 0), bias=False),
            nn.Conv2d(dim, dim, 1),
        )
        self.layer_norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.dropout = Dropout(drop_rate)

    def forward(self, before: Tensor, after: Tensor, own: Tensor) -> Tensor:
        """Mix: three (B, T, D) -> (B, T, D)."""
        depthwise, pointwise = self.conv_layers
        if depthwise.kernel_size[0] == 1:
            weight = depthwise.weight[:, 0, 0]
            mixed = before * weight[:, 0] + after * weight[:, 1] + own * weight[:, 2]
        else:
            # Stacked so that the channels-last view which the convolution prefers costs nothing.
            stacked = torch.stack([before, after, own], dim=2).permute(0, 3, 1, 2)
            mixed = depthwise(stacked).squeeze(-1).transpose(1, 2)
        mixed = F.linear(mixed, pointwise.weight.flatten(1), pointwise.bias)
        return self.layer_norm(self.dropout(mixed)).relu()


class GuidedAttentionLayer(AttentionLayer):
    """Attention layer with guided queries, which are also its source in self-attention."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float, kernel_size: int) -> None:
        super().__init__(dim, num_heads, drop_rate)
        self.guide = GuideConvolution(dim, kernel_size, drop_rate)

    def guided(
        self, before: Tensor, after: Tensor, query: Tensor, source: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Attend with guided queries: three (B, T, D), source (B, S, D) or None -> (B, T, D)."""
        asking = self.guide(before, after, query)
        return self.attend(query, asking, asking if source is None else source, mask)


class ContentGuidedLayer(GuidedAttentionLayer):
    """Layer of clips guided by the strongest features before and after them."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float) -> None:
        super().__init__(dim, num_heads, drop_rate, kernel_size=CONTENT_KERNEL)

    def forward(self, query: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend: query (B, T, D), source (B, S, D) or None, mask (B, T) or (B, T, S) -> (B, T, D)."""
        real = real_queries(query, mask)
        before, after = surrounding_max(query, real)
        return self.guided(before, after, query * real.unsqueeze(-1), source, mask)


class BoundGuidedLayer(GuidedAttentionLayer):
    """Layer of proposals guided by the clips around their two ends."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float, downscale: int) -> None:
        super().__init__(dim, num_heads, drop_rate, kernel_size=1)
        self.scale = downscale

    def forward(
        self,
        guide: Tensor,
        bounds: Tensor,
        query: Tensor,
        source: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        As upstream, the guide's padding clips count in the cell that the last real clip is in.

        Args:
            guide: (B, T, D), clips.
            bounds: (B, P, 2) long, first and last clip of each proposal.
            query: (B, P, D), proposals.
            source: (B, S, D), or None for self-attention.
            mask: (B, P) or (B, P, S).

        Returns:
            (B, P, D).
        """
        real = real_queries(query, mask).unsqueeze(-1)
        cells = cell_max(guide, self.scale)
        ends = (bounds // self.scale).unsqueeze(-1).expand(-1, -1, -1, cells.shape[-1])
        first = cells.gather(1, ends[:, :, 0]) * real
        last = cells.gather(1, ends[:, :, 1]) * real
        return self.guided(first, last, query * real, source, mask)


def real_queries(query: Tensor, mask: Tensor | None) -> Tensor:
    """Return which queries are real, (B, T) in the query's dtype: those with anything to attend to."""
    if mask is None:
        return query.new_ones(query.shape[:2])
    return (mask if mask.dim() == 2 else (mask > 0).any(-1)).to(query.dtype)


class ContentGuidedSelfAttentionBlock(SelfAttentionBlock):
    """Stack in which clips attend to themselves, guided by content."""

    layer_type = ContentGuidedLayer


class ContentGuidedCrossAttentionBlock(CrossAttentionBlock):
    """Stack in which clips attend to words, guided by content."""

    layer_type = ContentGuidedLayer


class BoundGuidedSelfAttentionBlock(nn.Module):
    """Stack in which proposals attend to themselves, guided by the clips at their ends."""

    def __init__(self, dim: int, num_layers: int, num_heads: int, drop_rate: float, downscale: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BoundGuidedLayer(dim, num_heads, drop_rate, downscale) for _ in range(num_layers))

    def forward(self, target: Tensor, tmask: Tensor | None = None, *, guide: Tensor, bounds: Tensor) -> Tensor:
        """Run the layers: target (B, P, D), tmask (B, P), guide (B, T, D), bounds (B, P, 2) long -> (B, P, D)."""
        for layer in self.layers:
            target = layer(guide, bounds, target, mask=tmask)
        return target


class BoundGuidedCrossAttentionBlock(nn.Module):
    """Stack in which proposals attend to words, guided by the clips at their ends."""

    def __init__(
        self, dim: int, num_layers: int, num_heads: int, drop_rate: float, downscale: int = BOUND_SCALE
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BoundGuidedLayer(dim, num_heads, drop_rate, downscale) for _ in range(num_layers))

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        smask: Tensor | None = None,
        tmask: Tensor | None = None,
        *,
        guide: Tensor,
        bounds: Tensor,
    ) -> Tensor:
        """Run the layers: source (B, L, D), target (B, P, D), and their masks -> (B, P, D)."""
        mask = pair_mask(smask, tmask)
        for layer in self.layers:
            target = layer(guide, bounds, target, source, mask)
        return target
