"""Encoder of clips, proposals and words, whose attention is guided.

A guided query also carries what lies before and after a clip, or at a proposal's ends.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.cpu_ops import Dropout, attend_with_bias, max_after, max_before
from hero_plugin.adapters.emb.config import EMBConfig
from hero_plugin.adapters.emb.layers import Conv1D, mask_bias
from hero_plugin.adapters.emb.proposals import ProposalMap, cell_max, scatter_to_map

NORM_EPSILON = 1e-6
CONTENT_KERNEL = 7
BOUND_SCALE = 8


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention whose heads are concatenated and not projected again."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Conv1D(dim, dim)
        self.key = Conv1D(dim, dim)
        self.value = Conv1D(dim, dim)
        self.dropout = Dropout(drop_rate)

    def forward(self, query: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Attend: query (B, T, D), source (B, S, D), mask (B, S) or (B, T, S), 1 where allowed -> (B, T, D)."""
        projected = (self.query(query), self.key(source), self.value(source))
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in projected)
        bias = mask_bias(mask)
        bias = bias[:, None, None] if mask.dim() == 2 else bias[:, None]
        context = attend_with_bias(q, k, v, bias, self.dropout.p if self.dropout.training else 0.0)
        return context.transpose(1, 2).flatten(2)


class AttentionLayer(nn.Module):
    """Base class: attention and two linear layers, each added to its input and normalised."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, num_heads, drop_rate)
        self.dense = nn.Sequential(Conv1D(dim, dim), nn.ReLU(), Conv1D(dim, dim))
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.dropout = Dropout(drop_rate)

    def attend(self, residual: Tensor, query: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Attend from a ``query`` (B, T, D), which need not be the ``residual`` to which the result is added."""
        context = self.attention(query, source, mask)
        hidden = self.norm1(residual + self.dropout(context))
        return self.norm2(hidden + self.dropout(self.dense(hidden)))


class PlainLayer(AttentionLayer):
    """Attention layer without a guide."""

    def forward(self, query: Tensor, source: Tensor | None, mask: Tensor) -> Tensor:
        """Attend: query (B, T, D), source (B, S, D) or None for self-attention, mask as in attention -> (B, T, D)."""
        return self.attend(query, query, query if source is None else source, mask)


def surrounding_max(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each real position the maximum over the real ones before it and over those after it.

    One running maximum each way: B·T·D values where a maximum over pairs of positions needs B·T·T·D.
    x (B, T, D), mask (B, T) -> two (B, T, D), zero where there is none and at padding.
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
        layers: Any = self.conv_layers
        depthwise, pointwise = layers
        if depthwise.kernel_size[0] == 1:
            weight = depthwise.weight[:, 0, 0]
            mixed = before * weight[:, 0] + after * weight[:, 1] + own * weight[:, 2]
        else:
            # Stacked so that the channels-last view which the convolution prefers costs nothing.
            stacked = torch.stack([before, after, own], dim=2).permute(0, 3, 1, 2)
            mixed = depthwise(stacked).squeeze(-1).transpose(1, 2)
        mixed = F.linear(mixed, pointwise.weight.flatten(1), pointwise.bias)
        return self.layer_norm(self.dropout(mixed)).relu()


class GuidedLayer(AttentionLayer):
    """Base class: attention layer with guided queries, which are also its source in self-attention."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float, kernel_size: int) -> None:
        super().__init__(dim, num_heads, drop_rate)
        self.guide = GuideConvolution(dim, kernel_size, drop_rate)

    def guided(self, before: Tensor, after: Tensor, query: Tensor, source: Tensor | None, mask: Tensor) -> Tensor:
        """Attend with guided queries: three (B, T, D), source (B, S, D) or None -> (B, T, D)."""
        asking = self.guide(before, after, query)
        return self.attend(query, asking, asking if source is None else source, mask)


class ContentGuidedLayer(GuidedLayer):
    """Layer of clips guided by the strongest features before and after them."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float) -> None:
        super().__init__(dim, num_heads, drop_rate, kernel_size=CONTENT_KERNEL)

    def forward(self, query: Tensor, source: Tensor | None, mask: Tensor) -> Tensor:
        """Attend: query (B, T, D), source (B, S, D) or None, mask (B, T) or (B, T, S) -> (B, T, D)."""
        real = real_queries(query, mask)
        before, after = surrounding_max(query, real)
        return self.guided(before, after, query * real.unsqueeze(-1), source, mask)


class BoundGuidedLayer(GuidedLayer):
    """Layer of proposals guided by the clips around their two ends."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float, downscale: int) -> None:
        super().__init__(dim, num_heads, drop_rate, kernel_size=1)
        self.scale = downscale

    def forward(self, query: Tensor, source: Tensor | None, mask: Tensor, *, guide: Tensor, bounds: Tensor) -> Tensor:
        """Attend: proposals query (B, P, D), source (B, S, D) or None, mask (B, P) or (B, P, S) -> (B, P, D).

        guide (B, T, D), the clips, and bounds (B, P, 2) long, first and last clip of each proposal. As upstream, the
        guide's padding clips count in the cell that the last real clip is in.
        """
        real = real_queries(query, mask).unsqueeze(-1)
        cells = cell_max(guide, self.scale)
        ends = (bounds // self.scale).unsqueeze(-1).expand(-1, -1, -1, cells.shape[-1])
        first = cells.gather(1, ends[:, :, 0]) * real
        last = cells.gather(1, ends[:, :, 1]) * real
        return self.guided(first, last, query * real, source, mask)


def real_queries(query: Tensor, mask: Tensor) -> Tensor:
    """Return which queries are real, (B, T) in the query's dtype: those with anything to attend to."""
    return (mask if mask.dim() == 2 else (mask > 0).any(-1)).to(query.dtype)


class AttentionBlock(nn.Module):
    """Stack of layers, through which a target passes."""

    def __init__(self, layer: Callable[[], AttentionLayer], num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer() for _ in range(num_layers))

    def run(self, target: Tensor, source: Tensor | None, mask: Tensor, **guidance: Tensor) -> Tensor:
        """Run the layers on a target (B, T, D); ``guidance`` is passed on to every one."""
        for layer in self.layers:
            target = layer(target, source, mask, **guidance)
        return target


class SelfAttentionBlock(AttentionBlock):
    """Stack of layers in which a sequence attends to itself."""

    def forward(self, target: Tensor, tmask: Tensor, **guidance: Tensor) -> Tensor:
        """Run the layers: target (B, T, D), tmask (B, T) -> (B, T, D)."""
        return self.run(target, None, tmask, **guidance)


class CrossAttentionBlock(AttentionBlock):
    """Stack of layers in which a target attends to a source."""

    def forward(self, source: Tensor, target: Tensor, smask: Tensor, tmask: Tensor, **guidance: Tensor) -> Tensor:
        """Run the layers: source (B, S, D), target (B, T, D), smask (B, S), tmask (B, T) -> (B, T, D)."""
        return self.run(target, source, tmask.unsqueeze(2) * smask.unsqueeze(1), **guidance)


Streams = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor, Tensor]


class GuidedAttentionEncoder(nn.Module):
    """Encoder of three streams in two rounds.

    Block names read source2target: f frames (clips), p proposals, w words; v, s and q in the second round.
    """

    def __init__(self, sizes: EMBConfig) -> None:
        super().__init__()
        num_layers = sizes.num_layers
        plain, by_content, by_bounds = (
            partial(layer, sizes.dim, sizes.num_heads, sizes.drop_rate)
            for layer in (PlainLayer, ContentGuidedLayer, BoundGuidedLayer)
        )
        self.proposal = ProposalMap(sizes.downscale, sizes.windows)
        self.f2f = SelfAttentionBlock(by_content, num_layers)
        self.p2p = SelfAttentionBlock(partial(by_bounds, sizes.downscale), num_layers)
        self.w2w = SelfAttentionBlock(plain, num_layers)
        self.f2w = CrossAttentionBlock(by_content, num_layers)
        # As upstream: at the default scale, whatever the map's.
        self.p2w = CrossAttentionBlock(partial(by_bounds, BOUND_SCALE), num_layers)
        self.w2f = CrossAttentionBlock(plain, num_layers)
        self.w2p = copy.deepcopy(self.w2f)
        self.v2v = copy.deepcopy(self.f2f)
        self.pq2q = copy.deepcopy(self.w2w)
        self.vq2q = copy.deepcopy(self.w2w)
        self.s2s = copy.deepcopy(self.p2p)

    def forward(self, vfeats: Tensor, qfeats: Tensor, vmask: Tensor, qmask: Tensor) -> Streams:
        """Encode a pair, with a map of N = ceil(T / downscale) squared proposals.

        Nothing is computed for entries of the map that are never valid; they come out as zeros.

        Takes clips (B, T, D), words (B, L, D) and their masks.

        Returns:
            (clips (B, T, D), their words (B, L, D)), (proposals (B, N·N, D), their words (B, L, D)),
            bounds (B, N·N, 2) long, mask (B, N·N).
        """
        entries = self.proposal.compact(vfeats, vmask)
        bounds, pmask = entries.bounds, entries.mask

        proposals = self.p2p(entries.features, pmask, guide=vfeats, bounds=bounds)
        clips = self.f2f(vfeats, vmask)
        words = self.w2w(qfeats, qmask)

        proposals, proposal_words = (
            self.p2w(words, proposals, qmask, pmask, guide=clips, bounds=bounds),
            self.w2p(proposals, words, pmask, qmask),
        )
        clips, clip_words = self.f2w(words, clips, qmask, vmask), self.w2f(clips, words, vmask, qmask)

        proposals = self.s2s(proposals, pmask, guide=clips, bounds=bounds)
        proposal_words = self.pq2q(proposal_words, qmask)
        clips = self.v2v(clips, vmask)
        clip_words = self.vq2q(clip_words, qmask)

        area = self.proposal.size(vfeats.shape[1]) ** 2
        proposals, bounds, pmask = (scatter_to_map(part, entries.cells, area) for part in (proposals, bounds, pmask))
        return (clips, clip_words), (proposals, proposal_words), bounds, pmask
