"""Levels live on a leading axis, and ride in the batch while they pass through the base."""

from __future__ import annotations

from typing import Any

from einops import rearrange, repeat
from torch import Tensor

from hero_plugin.structure import map_tensors


def fold(levels: Tensor) -> Tensor:
    """(N, B, ...) -> (N*B, ...), level-major: a base that pairs neighbours still pairs different samples."""
    return rearrange(levels, "n b ... -> (n b) ...")


def unfold(folded: Any, levels: int) -> Any:
    """(N*B, ...) -> (N, B, ...) for every tensor of ``folded``; a scalar gets a level axis of one."""

    def split(tensor: Tensor, key: str) -> Tensor:
        return rearrange(tensor, "(n b) ... -> n b ...", n=levels) if tensor.ndim else tensor.unsqueeze(0)

    return map_tensors(split, folded)


def repeat_levels(shared: Any, levels: int, batch: int) -> Any:
    """Repeat what all levels share, level-major: tensors (B, ...) -> (N*B, ...); others stay as they are."""

    def copy(tensor: Tensor, key: str) -> Tensor:
        if tensor.ndim == 0 or tensor.shape[0] != batch:
            return tensor
        return repeat(tensor, "b ... -> (n b) ...", n=levels)

    return map_tensors(copy, shared)
