"""Fusion of clips (or proposals) and words, as in VSLNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.dropout import Dropout
from hero_plugin.adapters.emb.layers import Conv1D, mask_logits


class ContextQueryAttention(nn.Module):
    """Context-query attention, both ways under a trilinear similarity."""

    def __init__(self, dim: int, drop_rate: float) -> None:
        super().__init__()
        self.w4C = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))
        self.w4Q = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))
        self.w4mlu = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, dim)))
        self.dropout = Dropout(drop_rate)
        self.cqa_linear = Conv1D(4 * dim, dim)

    def forward(self, context: Tensor, query: Tensor, c_mask: Tensor, q_mask: Tensor) -> Tensor:
        """Attend: context (B, T, D), query (B, L, D), c_mask (B, T), q_mask (B, L) -> (B, T, D)."""
        score = self.similarity(context, query)
        to_words = mask_logits(score, q_mask.unsqueeze(1)).softmax(dim=2).to(score.dtype)
        to_context = mask_logits(score, c_mask.unsqueeze(2)).softmax(dim=1).to(score.dtype)
        attended = to_words @ query
        # The words gather the context first: T·L·D products, where (T, L) @ (L, T) first makes T·T·D.
        returned = to_words @ (to_context.transpose(1, 2) @ context)
        joined = torch.cat([context, attended, context * attended, context * returned], dim=2)
        return self.cqa_linear(joined)

    def similarity(self, context: Tensor, query: Tensor) -> Tensor:
        """Compute w_c·c + w_q·q + w_m·(c ⊙ q) for every pair: (B, T, L)."""
        context, query = self.dropout(context), self.dropout(query)
        products = (context * self.w4mlu) @ query.transpose(1, 2)
        return context @ self.w4C + (query @ self.w4Q).transpose(1, 2) + products


class WeightedPool(nn.Module):
    """Weighted average of a sequence."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Average: x (B, L, D), mask (B, L) -> (B, D)."""
        weights = mask_logits(x @ self.weight, mask.unsqueeze(2)).softmax(dim=1).to(x.dtype)
        return (x * weights).sum(dim=1)


class ConcatenatePooled(nn.Module):
    """Layer that gives every position the pooled query."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weighted_pool = WeightedPool(dim)
        self.conv1d = Conv1D(2 * dim, dim)

    def forward(self, context: Tensor, query: Tensor, q_mask: Tensor) -> Tensor:
        """Join: context (B, T, D), query (B, L, D), q_mask (B, L) -> (B, T, D)."""
        for_context, for_query = self.conv1d.weight.chunk(2, dim=1)
        # The query's share is the same at every position, so it is computed once rather than T times.
        share = F.linear(self.weighted_pool(query, q_mask), for_query, self.conv1d.conv1d.bias)
        return F.linear(context, for_context) + share.unsqueeze(1)


class VSLFuser(nn.Module):
    """Fusion by context-query attention, then the pooled query beside every position."""

    def __init__(self, dim: int, drop_rate: float) -> None:
        super().__init__()
        self.cq_attention = ContextQueryAttention(dim, drop_rate)
        self.cq_concat = ConcatenatePooled(dim)

    def forward(self, vfeats: Tensor, qfeats: Tensor, vmask: Tensor, qmask: Tensor) -> Tensor:
        """Fuse: vfeats (B, T, D), qfeats (B, L, D), vmask (B, T), qmask (B, L) -> (B, T, D)."""
        fused = self.cq_attention(vfeats, qfeats, vmask, qmask)
        return self.cq_concat(fused, qfeats, qmask).relu()
