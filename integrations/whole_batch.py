"""Whole-batch outputs, gathered from the processes that ran their rows."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from hero_plugin import HeroModel
from hero_plugin.integrations.process_group import Group
from hero_plugin.integrations.shares import BatchShard
from hero_plugin.structure import map_tensors


def whole_outputs(model: Any, outputs: Any, shard: BatchShard, group: Group) -> Any:
    """Turn the outputs of the rows of ``shard`` into outputs of all rows of the batch, in their order.

    What a wrapped model keeps of its forward for its losses is completed as well. Only this process' own rows have a
    graph: a loss of the whole batch then has, in each process, the part of its gradient that goes through these rows,
    and the parts add up to the gradient that one process with the whole batch would have.
    """
    found: dict[int, Tensor] = {}

    def find(tensor: Tensor, key: str = "") -> Tensor:
        found[id(tensor)] = tensor
        return tensor

    def put(tensor: Tensor, key: str = "") -> Tensor:
        return whole[id(tensor)]

    map_tensors(find, outputs)
    if isinstance(model, HeroModel):
        model.map_last_forward(find)
    whole = dict(zip(found, whole_tensors(list(found.values()), shard, group), strict=True))
    if isinstance(model, HeroModel):
        model.map_last_forward(put)
    return map_tensors(put, outputs)


def whole_tensors(tensors: list[Tensor], shard: BatchShard, group: Group) -> list[Tensor]:
    """Turn each (rows run, ...) into (rows of the batch, ...), bit for bit, by one exchange of bytes."""
    for tensor in tensors:
        if tensor.shape[:1] != (len(shard.rows),):
            raise ValueError(
                f"the model was run on {len(shard.rows)} rows of a batch, and one of its outputs has the shape "
                f"{tuple(tensor.shape)}: only outputs with a row for each input can be gathered"
            )
    own = [tensor[: shard.count] for tensor in tensors]
    mine = torch.cat([_bytes(tensor.detach()) for tensor in own], dim=1)
    padded = mine.new_zeros(max(shard.counts), mine.shape[1])
    padded[: shard.count] = mine
    received = group.gather_tensor(padded)
    made, start = [], 0
    for tensor in own:
        width = prod(tensor.shape[1:]) * tensor.element_size()
        parts = [
            tensor if index == shard.index else _read(each[:count, start : start + width], tensor)
            for index, (each, count) in enumerate(zip(received, shard.counts, strict=True))
        ]
        made.append(torch.cat(parts))
        start += width
    return made


def _bytes(tensor: Tensor) -> Tensor:
    """View (B, ...) as (B, bytes per row)."""
    return tensor.reshape(len(tensor), prod(tensor.shape[1:])).contiguous().view(torch.uint8)


def _read(raw: Tensor, like: Tensor) -> Tensor:
    """Undo ``_bytes``: return a tensor of the dtype and row shape of ``like``."""
    return raw.clone(memory_format=torch.contiguous_format).view(like.dtype).reshape(len(raw), *like.shape[1:])
