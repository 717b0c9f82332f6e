"""From examples to batches on the device."""

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
"""What of a batch stays on the CPU: how many moments each query has, by which a DETR's targets are cut."""


@dataclass(frozen=True)
class CollateShard:
    """Makes one process' share of each batch."""

    collate: Collate
    rank: Rank
    neighbours: int

    def __call__(self, items: Sequence[Any]) -> Batch:
        return self.collate(items, BatchShard.of(len(items), self.rank, self.neighbours).rows)


def batches(
    collate: Collate,
    items: Sequence[Any],
    indices: list[list[int]],
    device: torch.device,
    workers: int = 0,
    *,
    rank: Rank | None = None,
    neighbours: int = 0,
) -> Iterator[Batch]:
    """The given batches, in order, on ``device``; copied there without waiting where it is a GPU.

    rank, neighbours: which of several processes loads its share of each of them; see :class:`BatchShard`.

    The loader has a generator of its own: made without one, it would draw from torch's global generator,
    and a run that starts its loader once more because it was resumed would draw other dropout.
    """
    loader = DataLoader(
        items,  # type: ignore[arg-type]  # a sequence is all that DataLoader asks of a dataset
        batch_sampler=indices,
        collate_fn=collate if rank is None else CollateShard(collate, rank, neighbours),
        num_workers=workers if collate.parallelizable else 0,
        worker_init_fn=_out_of_reach,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    for batch in loader:
        yield to_device(batch, device)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch where the model is, but for what is read number by number: a GPU asked for it would be waited for."""
    return {
        name: each if name in READ_ONE_BY_ONE else each.to(device, non_blocking=True) for name, each in batch.items()
    }


def _out_of_reach(worker: int) -> None:
    """Ctrl-C and ``torchrun`` signal a whole group of processes; a training that stops in order still loads."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
