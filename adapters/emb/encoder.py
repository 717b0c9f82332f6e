"""Encoder of clips, proposals and words, each reading itself and the others."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from hero_plugin.adapters.emb.attention import CrossAttentionBlock, SelfAttentionBlock
from hero_plugin.adapters.emb.guides import (
    BoundGuidedCrossAttentionBlock,
    BoundGuidedSelfAttentionBlock,
    ContentGuidedCrossAttentionBlock,
    ContentGuidedSelfAttentionBlock,
)
from hero_plugin.adapters.emb.proposals import ProposalMap, scatter_to_map

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
