"""The order of examples: batches are a function of the seed and the epoch, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class EpochOrder:
    """Shuffled batches of example indices, the same for the same epoch.

    Nothing is remembered between epochs, so a run that resumes in the middle of one draws the batches that
    it would have drawn. Several processes draw the same batches, and take a shard of each.

    >>> order = EpochOrder(size=5, batch_size=2, seed=0)
    >>> order.batches(epoch=3) == EpochOrder(size=5, batch_size=2, seed=0).batches(epoch=3)
    True
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        if size < 1 or batch_size < 1:
            raise ValueError(f"size and batch_size must be at least 1, got {size} and {batch_size}")
        self.size, self.batch_size, self.seed = size, batch_size, seed

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return -(-self.size // self.batch_size)

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch, as example indices."""
        generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return batches of similar lengths, longest first: little padding, and running out of memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _mix(seed: int, epoch: int) -> int:
    """Return one 63-bit number for the pair, so that epoch 1 of seed 0 is not epoch 0 of seed 1."""
    return (seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % (1 << 63)
