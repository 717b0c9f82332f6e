"""Running maximum before and after each position."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hero_plugin.versions import is_compiling


def max_before(x: Tensor) -> Tensor:
    """Return for each position the maximum over all before it, and the type's lowest number at the first.

    On CPU this walks over the positions: a few times faster than PyTorch's running maximum over an axis that is not
    the last, which reads with a stride; and the backward pass needs one byte per value where that needs eight. Values
    and gradients are those of ``torch.cummax``.

    Args:
        x: (B, T, D).

    Returns:
        (B, T, D).
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
