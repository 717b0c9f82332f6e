"""Levels live on a leading axis, and ride in the batch while they pass through the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from hero_plugin.structure import map_items, map_tensors


def fold(levels: Tensor) -> Tensor:
    """(N, B, ...) -> (N*B, ...), level-major: a base that pairs neighbours still pairs different samples."""
    return rearrange(levels, "n b ... -> (n b) ...")


def unfold(folded: Any, levels: int, kinds: Mapping[str, str] | None = None) -> Any:
    """(N*B, ...) -> (N, B, ...) for every tensor of ``folded`` but those that ``kinds`` calls whole.

    A scalar gets a level axis of one.
    """

    def split(tensor: Tensor, key: str) -> Tensor:
        if kinds and kinds.get(key) == "whole":
            return tensor
        return rearrange(tensor, "(n b) ... -> n b ...", n=levels) if tensor.ndim else tensor.unsqueeze(0)

    return map_tensors(split, folded)


def stack(results: Sequence[Any], kinds: Mapping[str, str] | None = None) -> Any:
    """What every level gave by itself, each (B, ...) -> (N, B, ...), as ``unfold`` makes it of levels in one batch."""
    tensors: list[list[Tensor]] = []
    for result in results:
        tensors.append([])
        map_tensors(_keep_in(tensors[-1]), result)
    of_all_levels = iter(zip(*tensors, strict=True))

    def join(tensor: Tensor, key: str) -> Tensor:
        levels = next(of_all_levels)
        if kinds and kinds.get(key) == "whole":
            return tensor
        return torch.stack(levels) if tensor.ndim else tensor.unsqueeze(0)

    return map_tensors(join, results[0])


def _keep_in(found: list[Tensor]) -> Callable[[Tensor, str], None]:
    return lambda tensor, key: found.append(tensor)


def repeat_levels(shared: Any, levels: int, batch: int) -> Any:
    """Repeat what all levels share, level-major, in tuples and mappings nested at will.

    Tensors (B, ...) -> (N*B, ...), and so a list of B items, one a sample, whatever they are; others stay as they are.
    """
    if isinstance(shared, list) and len(shared) == batch:
        return shared * levels
    if isinstance(shared, Tensor):
        return repeat(shared, "b ... -> (n b) ...", n=levels) if shared.shape[:1] == (batch,) else shared
    return map_items(lambda item: repeat_levels(item, levels, batch), shared)
