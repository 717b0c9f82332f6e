"""Operations that are faster on CPU than PyTorch's: dropout, attention with dropout, PReLU, running maximum.

Each hands over to PyTorch's own on other devices, and all but dropout in compiled models.
"""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hero_plugin.tensors import is_compiling

DROPOUT_STEPS = 1 << 16
"""Values of a 16-bit random number: the probability of dropping is a multiple of one over this."""


class Dropout(nn.Dropout):
    """``nn.Dropout``, several times faster on CPU.

    There PyTorch draws one Bernoulli variable per element, which takes longer than EMB's attention itself.
    Four elements share one 64-bit draw here: 16 bits each, so ``p`` is met to within 1e-5, and the scale uses
    the probability that was really applied, so the expectation is exact. The draws are not PyTorch's: under one
    seed, other elements are dropped. PyTorch's own serves other devices. For a compiler, which has no draw of 64 bits,
    three elements share one of 48.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements in training; any shape in, the same shape out."""
        return drop(input, self.p) if self.training else input


def drop(input: Tensor, p: float) -> Tensor:
    """Drop each element of ``input`` with probability ``p`` and scale the rest up; the shape stays."""
    if p == 0.0:
        return input
    if p == 1.0 or input.device.type != "cpu":
        return F.dropout(input, p)
    if is_compiling():  # compiled, PyTorch's own is slower still
        keep, scale = draw_keep_mask(input.shape, p)
        return input * keep * scale
    return _Dropped.apply(input, p)


class _Dropped(torch.autograd.Function):
    """Dropout that remembers one byte per element; autograd's own product would remember four or eight."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, p: float) -> Tensor:
        keep, ctx.scale = draw_keep_mask(input.shape, p)
        ctx.save_for_backward(keep)
        return _kept(input, keep, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return _kept(grad, keep, ctx.scale), None


def _kept(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """Return ``x * keep * scale``, in this order: converting first and going on in place is the fastest."""
    return keep.to(x.dtype).mul_(x).mul_(scale)


def draw_keep_mask(shape: torch.Size, p: float) -> tuple[Tensor, float]:
    """Draw on CPU which elements stay when each is dropped with probability ``p``.

    Returns:
        Zeros and ones as bytes, which convert to floats several times faster than booleans do, of the given shape; and
        the scale of what stays.
    """
    kept = max(1, DROPOUT_STEPS - round(p * DROPOUT_STEPS))
    draws, last = random_int16(shape), kept - DROPOUT_STEPS // 2 - 1  # int16 is signed
    if is_compiling():
        return (draws <= last).byte(), DROPOUT_STEPS / kept
    keep = torch.le(draws, last, out=torch.empty(shape, dtype=torch.uint8))
    return keep, DROPOUT_STEPS / kept


def random_int16(shape: torch.Size) -> Tensor:
    """Draw independent 16-bit integers on CPU, all 65536 values equally likely, from torch's default generator."""
    count = shape.numel()
    if is_compiling():  # that knows no random_, and no range of 64 bits: three elements share 48
        draws = torch.randint(2**48, ((count + 2) // 3, 1), device="cpu")
        return draws.view(torch.int16)[:, :3].flatten()[:count].view(shape)
    # One 64-bit draw serves four elements. To None means up to and including the largest number.
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device="cpu").random_(-(2**63), None)
    return draws.view(torch.int16)[:count].view(shape)


BLOCK_WEIGHTS = 1 << 19
"""Attention weights per block: 2 MiB of float32, so that they stay in the cache."""

BLOCKS_FROM = 1 << 21
"""Attention weights from which a batch is worked on in blocks: 8 MiB of float32. Fewer go in one piece."""

LOWEST = -1e30
"""Bias of a key that is shut out. Finite: a query with nothing to attend to averages everything, and is not NaN."""


def attend_with_bias(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Return ``dropout(softmax(Q Kᵀ / sqrt(e) + bias)) V``.

    query (B, heads, T, e), key (B, heads, S, e), value (B, heads, S, d); the bias broadcasts to (B, heads, T, S), None
    adds nothing; dropout is a probability, 0 outside training -> (B, heads, T, d), which in blocks on CPU is laid out
    in memory as (B, T, heads, d).
    """
    # On CPU PyTorch fuses no attention with dropout, and the weights of all heads and layers would lie in memory until
    # the backward pass. Where they are far larger than the cache, moving them costs more than computing them: so a few
    # samples at a time, and their weights once more in the backward pass.
    compiling = is_compiling()
    trains = dropout > 0.0 or (torch.is_grad_enabled() and not compiling)
    if trains and query.device.type == "cpu":
        weights = query.shape[:-1].numel() * key.shape[-2]
        if not compiling and weights > BLOCKS_FROM and query.dtype == value.dtype == torch.float32:
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


class PReLU(nn.PReLU):
    """``nn.PReLU`` of one slope: the same numbers, its gradient up to twice as fast on CPU.

    There PyTorch computes that gradient one number at a time; here a few passes do it in vectors. The output and the
    gradient of the input are PyTorch's to the bit; the slope's gradient is a sum, added up in another order. PyTorch's
    own serves other devices, compiled models and mixed precision.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Scale what is below zero by the slope; any shape in, the same shape out."""
        slow = torch.is_grad_enabled() and input.device.type == "cpu" and not is_compiling()
        if slow and self.weight.numel() == 1 and self.weight.dtype == input.dtype:
            return _PReLU.apply(input, self.weight)
        return super().forward(input)


class _PReLU(torch.autograd.Function):
    """PyTorch's PReLU with a gradient of vectorised passes."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(input, slope)
        return torch.prelu(input, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        input, slope = ctx.saved_tensors
        of_input = of_slope = None
        if ctx.needs_input_grad[1]:
            of_slope = input.clamp(max=0).mul_(grad).sum().view_as(slope)
        if ctx.needs_input_grad[0]:
            above = torch.ops.aten.threshold_backward(grad, input, 0)
            of_input = (grad - above).mul_(slope).add_(above)  # one of the two terms is zero: exact
        return of_input, of_slope


def max_before(x: Tensor) -> Tensor:
    """Return for each position the maximum over all before it, and the type's lowest number at the first.

    On CPU this walks over the positions: a few times faster than PyTorch's running maximum over an axis that is not
    the last, which reads with a stride; and the backward pass needs one byte per value where that needs eight. Values
    and gradients are those of ``torch.cummax``. (B, T, D) -> (B, T, D).
    """
    if x.device.type == "cpu" and not is_compiling():
        return _RunningMax.apply(x, False)
    return F.pad(x, (0, 0, 1, 0), value=torch.finfo(x.dtype).min)[:, :-1].cummax(dim=1).values


def max_after(x: Tensor) -> Tensor:
    """Return for each position the maximum over all after it, otherwise as ``max_before``."""
    if x.device.type == "cpu" and not is_compiling():
        return _RunningMax.apply(x, True)
    return max_before(x.flip(1)).flip(1)


class _RunningMax(torch.autograd.Function):
    """Running maximum; of equal values the last one met takes the gradient, as in ``torch.cummax``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, backwards: bool) -> Tensor:
        order = range(x.shape[1])[:: -1 if backwards else 1]
        most = torch.empty_like(x)
        values, out = x.unbind(1), most.unbind(1)
        out[order[0]].fill_(torch.finfo(x.dtype).min)
        for now, following in pairwise(order):
            torch.maximum(out[now], values[now], out=out[following])
        ctx.order = order
        ctx.save_for_backward((x >= most).view(torch.uint8))
        return most

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (record,) = ctx.saved_tensors
        order, share = ctx.order, record.to(grad.dtype)
        arriving, taken = grad.unbind(1), share.unbind(1)
        taken[order[-1]].zero_()  # nothing comes after it
        waiting = torch.zeros_like(arriving[0])  # what later positions have to give to the latest record
        for now, following in zip(order[-2::-1], order[:0:-1], strict=True):
            waiting.add_(arriving[following])
            waiting.sub_(taken[now].mul_(waiting))
        return share, None
