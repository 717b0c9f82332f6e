"""Attention with dropout on its weights: fused where PyTorch has that, in blocks on CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hero_plugin.adapters.dropout import draw_keep_mask, drop
from hero_plugin.versions import is_compiling

BLOCK_WEIGHTS = 1 << 19
"""Attention weights per block: 2 MiB of float32, so that they stay in the cache."""

BLOCKS_FROM = 1 << 21
"""Attention weights from which a batch is worked on in blocks: 8 MiB of float32. Fewer go in one piece."""

LOWEST = -1e30
"""Bias of a key that is shut out. Finite: a query with nothing to attend to averages everything, and is not NaN."""


def attend_with_bias(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Return ``dropout(softmax(Q Kᵀ / sqrt(e) + bias)) V``.

    Args:
        query: (B, heads, T, e).
        key: (B, heads, S, e).
        value: (B, heads, S, d).
        bias: added to the scores, broadcast to (B, heads, T, S); None adds nothing.
        dropout: probability of dropping an attention weight (0 outside training).

    Returns:
        (B, heads, T, d); in blocks on CPU it is laid out in memory as (B, T, heads, d).
    """
    # On CPU PyTorch fuses no attention with dropout, and the weights of all heads and layers would lie in memory until
    # the backward pass. Where they are far larger than the cache, moving them costs more than computing them: so a few
    # samples at a time, and their weights once more in the backward pass.
    trains = dropout > 0.0 or torch.is_grad_enabled()
    if trains and query.device.type == "cpu" and not is_compiling():
        weights = query.shape[:-1].numel() * key.shape[-2]
        if weights > BLOCKS_FROM and query.dtype == value.dtype == torch.float32:
            return _InBlocks.apply(query, key, value, bias, dropout)
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        scores = scores if bias is None else scores + bias
        return drop(scores.softmax(-1), dropout).to(value.dtype) @ value
    if bias is not None:
        bias = bias.clamp(min=max(LOWEST, torch.finfo(query.dtype).min)).to(query.dtype)  # float16 has no -1e30
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)


class _InBlocks(torch.autograd.Function):
    """Attention of a few samples at a time.

    It remembers one byte per weight, whether dropout kept it, and none of the weights: the backward pass computes them
    again from query and key, in the same order and so to the same bits. Keys past the last one that is open to any
    query of a block are left out: their weights are exactly zero.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
        ctx.blocks = _blocks(query, key, bias)
        ctx.root = math.sqrt(query.shape[-1])
        ctx.kept = []
        context = _empty_heads(query, value.shape[-1])
        for part, keys in ctx.blocks:
            weights = _weights(query[part] / ctx.root, key[part, :, :keys], bias, part)
            keep, ctx.scale = draw_keep_mask(weights.shape, p)
            ctx.kept.append(keep)
            context[part] = weights.mul_(keep) @ value[part, :, :keys]
        ctx.save_for_backward(query, key, value, bias)
        return context.mul_(ctx.scale)  # one scale for all kept weights, so it may wait until here

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias = ctx.saved_tensors
        d_query, d_key, d_value = (_empty_heads(x, x.shape[-1]) for x in (query, key, value))
        for (part, keys), keep in zip(ctx.blocks, ctx.kept, strict=True):
            scaled, k, v = query[part] / ctx.root, key[part, :, :keys], value[part, :, :keys]
            arrived = grad[part] * ctx.scale
            weights = _weights(scaled, k, bias, part)
            d_weights = (arrived @ v.transpose(-1, -2)).mul_(keep)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            d_query[part] = (d_scores @ k).div_(ctx.root)
            for whole, ours in (
                (d_key, d_scores.transpose(-1, -2) @ scaled),
                (d_value, weights.mul_(keep).transpose(-1, -2) @ arrived),
            ):
                whole[part, :, :keys] = ours
                whole[part, :, keys:] = 0.0
        return d_query, d_key, d_value, None, None


def _weights(query: Tensor, key: Tensor, bias: Tensor | None, part: slice) -> Tensor:
    """Return a block's attention weights: scaled query (b, heads, T, e), key (b, heads, s, e) -> (b, heads, T, s)."""
    scores = query @ key.transpose(-1, -2)
    if bias is not None:
        scores += (bias[part] if bias.shape[0] > 1 else bias)[..., : key.shape[2]]
    return scores.softmax(-1)


def _blocks(query: Tensor, key: Tensor, bias: Tensor | None) -> list[tuple[slice, int]]:
    """Return the samples of each block, and how many of their keys take part."""
    batch, heads, length, _ = query.shape
    keys = key.shape[2]
    size = max(1, BLOCK_WEIGHTS // max(1, heads * length * keys))
    parts = [slice(first, min(first + size, batch)) for first in range(0, batch, size)]
    # Only where every query of a sample sees the same keys; one that sees none averages them all.
    if bias is None or bias.shape != (batch, 1, 1, keys):
        return [(part, keys) for part in parts]
    last = ((bias[:, 0, 0] > LOWEST / 2) * torch.arange(1, keys + 1)).amax(-1)
    last = last.masked_fill(last == 0, keys)
    return [(part, int(last[part].max())) for part in parts]


def _empty_heads(like: Tensor, width: int) -> Tensor:
    """Return an empty (B, heads, L, width) laid out as (B, L, heads, width), so that joining heads copies nothing."""
    batch, heads, length, _ = like.shape
    return like.new_empty(batch, length, heads, width).transpose(1, 2)
