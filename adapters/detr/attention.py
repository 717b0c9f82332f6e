"""Multi-head attention, with and without its own projections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.attention import LOWEST, attend_with_bias
from hero_plugin.adapters.dropout import Dropout


class MultiheadAttention(nn.Module):
    """``nn.MultiheadAttention``, batch first, with the same parameter names; faster, as it returns no weights."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * dim, dim)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.zeros_(self.out_proj.bias)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None = None) -> Tensor:
        """Project, attend, and project the joined heads.

        Args:
            query: (B, T, D).
            key: (B, S, D). Where it is the same object as ``query``, one matrix product projects both.
            value: (B, S, D).
            keep: as in ``attend_with_mask``.

        Returns:
            (B, T, D).
        """
        dim = self.out_proj.in_features
        if query is key:
            weights, biases = self.in_proj_weight.split((2 * dim, dim)), self.in_proj_bias.split((2 * dim, dim))
            q, k = F.linear(query, weights[0], biases[0]).chunk(2, dim=-1)
            v = F.linear(value, weights[1], biases[1])
        else:
            parts = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
            q, k, v = (F.linear(*part) for part in parts)
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))
        return self.out_proj(attend_with_mask(q, k, v, keep, self.dropout))


class ProjectedAttention(nn.Module):
    """Attention over projected inputs; queries and keys may be wider than values."""

    def __init__(self, value_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.out_proj = nn.Linear(value_dim, value_dim)
        nn.init.zeros_(self.out_proj.bias)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None = None) -> Tensor:
        """Attend and project the joined heads.

        Args:
            query: (B, heads, T, e).
            key: (B, heads, S, e).
            value: (B, heads, S, d), with heads * d = value_dim.
            keep: as in ``attend_with_mask``.

        Returns:
            (B, T, value_dim).
        """
        return self.out_proj(attend_with_mask(query, key, value, keep, self.dropout))


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Split the last axis into heads: (B, L, heads·d) -> (B, heads, L, d)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def attendable(padding: Tensor) -> Tensor:
    """Return where keys may be attended to: ``padding`` (..., S), True at padding -> (..., S), True where open.

    Where all keys are padding, all are open: the average, finite with finite gradients, in place of NaN.
    """
    return ~padding | padding.all(-1, keepdim=True)


def attend_with_mask(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, dropout: nn.Dropout) -> Tensor:
    """Attend where ``keep`` allows it, and join the heads.

    Args:
        query: (B, heads, T, e).
        key: (B, heads, S, e).
        value: (B, heads, S, d).
        keep: True where attention is allowed, or None; broadcasts to (B, heads, T, S).
        dropout: drops attention weights, while it is in training mode.

    Returns:
        (B, T, heads·d).
    """
    p = dropout.p if dropout.training else 0.0
    if p and query.device.type == "cpu":
        # In float32, whatever the query's type: half precision has no number so low.
        bias = None if keep is None else torch.zeros_like(keep, dtype=torch.float32).masked_fill_(~keep, LOWEST)
        context = attend_with_bias(query, key, value, bias, p)
    else:
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=keep, dropout_p=p)
    return context.transpose(1, 2).flatten(2)
