"""Loading of batches onto the device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from hero_plugin.integrations.ranks import Rank
from hero_plugin.integrations.shares import BatchShard
from hero_plugin.integrations.task import Batch, Collate

READ_ONE_BY_ONE = frozenset({"windows"})
"""Entries of a batch that stay on the CPU: the number of moments per query, by which a DETR's targets are cut."""


@dataclass(frozen=True)
class CollateShard:
    """A collate function for one process' shard of each batch."""

    collate: Collate
    rank: Rank
    following_rows: int

    def __call__(self, items: Sequence[Any]) -> Batch:
        return self.collate(items, BatchShard.of(len(items), self.rank, self.following_rows).rows)


def batches(
    collate: Collate,
    items: Sequence[Any],
    indices: list[list[int]],
    device: torch.device,
    workers: int = 0,
    *,
    rank: Rank | None = None,
    following_rows: int = 0,
) -> Iterator[Batch]:
    """Yield the given batches, in order, on ``device``; copied there without waiting where it is a GPU.

    The loader has a generator of its own: made without one, it would draw from torch's global generator,
    and a run that starts its loader once more because it was resumed would draw other dropout.

    Args:
        collate: Makes a batch.
        items: Examples.
        indices: Places in ``items``, per batch.
        device: Where the batches go.
        workers: Loading processes.
        rank: The process whose shard of each batch to load; None loads whole batches.
        following_rows: As in ``BatchShard.of``.
    """
    loader = DataLoader(
        items,  # type: ignore[arg-type]  # a sequence is all that DataLoader asks of a dataset
        batch_sampler=indices,
        collate_fn=collate if rank is None else CollateShard(collate, rank, following_rows),
        num_workers=workers if collate.parallelizable else 0,
        worker_init_fn=_out_of_reach,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    for batch in loader:
        yield to_device(batch, device)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch to the device, except what is read number by number: reading it there would wait for the GPU."""
    return {
        name: each if name in READ_ONE_BY_ONE else each.to(device, non_blocking=True) for name, each in batch.items()
    }


def _out_of_reach(worker: int) -> None:
    """Leave the process group: Ctrl-C and ``torchrun`` signal all of it, but a training that stops still loads."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
