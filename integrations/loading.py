"""From examples to batches on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from hero_plugin.integrations.task import Batch, Collate


def batches(
    collate: Collate, items: Sequence[Any], indices: list[list[int]], device: torch.device, workers: int = 0
) -> Iterator[Batch]:
    """The given batches, in order, on ``device``; copied there without waiting where it is a GPU.

    The loader has a generator of its own: made without one, it would draw from torch's global generator,
    and a run that starts its loader once more because it was resumed would draw other dropout.
    """
    loader = DataLoader(
        items,  # type: ignore[arg-type]  # a sequence is all that DataLoader asks of a dataset
        batch_sampler=indices,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    for batch in loader:
        yield {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
