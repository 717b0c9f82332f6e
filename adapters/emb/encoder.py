"""Guided attention: queries carry what lies before and after a clip, or at a proposal's ends."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.cpu_ops import Dropout, attend_with_bias, max_after, max_before
from hero_plugin.adapters.emb.layers import Conv1D, mask_bias
from hero_plugin.adapters.emb.proposals import ProposalMap, cell_max, scatter_to_map

# Post-norm attention blocks over words, clips or proposals.


NORM_EPSILON = 1e-6


def pair_mask(source_mask: Tensor | None, target_mask: Tensor | None) -> Tensor | None:
    """Combine (B, S) and (B, T) to (B, T, S), 1 where both are real; None where either is missing."""
    if source_mask is None or target_mask is None:
        return None
    return target_mask.unsqueeze(2) * source_mask.unsqueeze(1)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention whose heads are concatenated and not projected again."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got dim={dim} and num_heads={num_heads}")
        self.num_heads = num_heads
        self.query = Conv1D(dim, dim)
        self.key = Conv1D(dim, dim)
        self.value = Conv1D(dim, dim)
        self.dropout = Dropout(drop_rate)

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from the query to the source.

        Args:
            query: (B, T, D).
            source: (B, S, D).
            mask: (B, S), (B, T, S) or None, 1 where attention is allowed.

        Returns:
            (B, T, D).
        """
        q, k, v = self._heads(self.query(query)), self._heads(self.key(source)), self._heads(self.value(source))
        bias = None
        if mask is not None:
            bias = mask_bias(mask)
            bias = bias[:, None, None] if mask.dim() == 2 else bias[:, None]
        context = attend_with_bias(q, k, v, bias, self.dropout.p if self.dropout.training else 0.0)
        return context.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        """Split the last axis into heads: (B, L, heads·d) -> (B, heads, L, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class AttentionLayer(nn.Module):
    """Layer of attention and two linear layers, each added to its input and normalised."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, num_heads, drop_rate)
        self.dense = nn.Sequential(Conv1D(dim, dim), nn.ReLU(), Conv1D(dim, dim))
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.dropout = Dropout(drop_rate)

    def forward(self, query: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend: query (B, T, D), source (B, S, D) or None for self-attention, mask as in attention -> (B, T, D)."""
        return self.attend(query, query, query if source is None else source, mask)

    def attend(self, residual: Tensor, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """Attend as in ``forward``, from a ``query`` that need not be the ``residual`` to which the result is added."""
        context = self.attention(query, source, mask)
        hidden = self.norm1(residual + self.dropout(context))
        return self.norm2(hidden + self.dropout(self.dense(hidden)))


class SelfAttentionBlock(nn.Module):
    """Stack of layers in which a sequence attends to itself."""

    layer_type: ClassVar[type[AttentionLayer]] = AttentionLayer

    def __init__(self, dim: int, num_layers: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.layer_type(dim, num_heads, drop_rate) for _ in range(num_layers))

    def forward(self, target: Tensor, tmask: Tensor | None = None) -> Tensor:
        """Run the layers: target (B, T, D), tmask (B, T) -> (B, T, D)."""
        for layer in self.layers:
            target = layer(target, mask=tmask)
        return target


class CrossAttentionBlock(nn.Module):
    """Stack of layers in which a target attends to a source."""

    layer_type: ClassVar[type[AttentionLayer]] = AttentionLayer

    def __init__(self, dim: int, num_layers: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.layer_type(dim, num_heads, drop_rate) for _ in range(num_layers))

    def forward(
        self, source: Tensor, target: Tensor, smask: Tensor | None = None, tmask: Tensor | None = None
    ) -> Tensor:
        """Run the layers: source (B, S, D), target (B, T, D), smask (B, S), tmask (B, T) -> (B, T, D)."""
        mask = pair_mask(smask, tmask)
        for layer in self.layers:
            target = layer(target, source, mask)
        return target


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


# Encoder of clips, proposals and words, each reading itself and the others.


Streams = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor, Tensor]


class GuidedAttentionEncoder(nn.Module):
    """Encoder of three streams in two rounds.

    Block names read source2target: f frames (clips), p proposals, w words; v, s and q in the second round.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        drop_rate: float,
        downscale: int,
        proposal: ProposalMap,
    ) -> None:
        super().__init__()
        sizes = (dim, num_layers, num_heads, drop_rate)
        self.proposal = proposal
        self.f2f = ContentGuidedSelfAttentionBlock(*sizes)
        self.p2p = BoundGuidedSelfAttentionBlock(*sizes, downscale)
        self.w2w = SelfAttentionBlock(*sizes)
        self.f2w = ContentGuidedCrossAttentionBlock(*sizes)
        # As upstream: at the default scale, whatever the map's.
        self.p2w = BoundGuidedCrossAttentionBlock(*sizes)
        self.w2f = CrossAttentionBlock(*sizes)
        self.w2p = copy.deepcopy(self.w2f)
        self.v2v = copy.deepcopy(self.f2f)
        self.pq2q = copy.deepcopy(self.w2w)
        self.vq2q = copy.deepcopy(self.w2w)
        self.s2s = copy.deepcopy(self.p2p)

    def forward(
        self, vfeats: Tensor, qfeats: Tensor, vmask: Tensor, qmask: Tensor, moments: Tensor | None = None
    ) -> Streams:
        """Encode a pair, with a map of N = ceil(T / downscale) squared proposals.

        Nothing is computed for entries of the map that are never valid; they come out as zeros.

        Args:
            vfeats: (B, T, D), clips.
            qfeats: (B, L, D), words.
            vmask: (B, T).
            qmask: (B, L).
            moments: ignored, as upstream.

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
