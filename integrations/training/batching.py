"""The order of examples, batches of them on the device, and predictions of a whole set."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from hero_plugin.integrations.data.feature_bank import BankCollate
from hero_plugin.integrations.support.process import Rank
from hero_plugin.integrations.training.distributed import ALONE, Amp, BatchShard, Group, autocast
from hero_plugin.integrations.training.task import Batch, Grounded, Task

READ_ONE_BY_ONE = frozenset({"moment_counts"})
"""Entries of a batch that stay on the CPU: the number of moments per query, by which a DETR's targets are cut."""


def batches(
    collate: BankCollate,
    items: Sequence[Any],
    indices: list[list[int]],
    device: torch.device,
    workers: int = 0,
    shard: tuple[Rank, int] | None = None,
) -> Iterator[Batch]:
    """Yield the given batches, in order, on ``device``; copied there without waiting where it is a GPU.

    The loader has a generator of its own: made without one, it would draw from torch's global generator,
    and a run that starts its loader once more because it was resumed would draw other dropout.

    ``indices`` are places in ``items``, per batch; ``shard`` is the process whose shard of each to load, and how many
    following rows its model compares with, None for whole batches.
    """
    loader: DataLoader[Any] = DataLoader(
        items,  # type: ignore[arg-type]  # a sequence is all that DataLoader asks of a dataset
        batch_sampler=indices,
        collate_fn=collate if shard is None else partial(_collate_shard, collate, *shard),
        num_workers=workers if collate.parallelizable else 0,
        worker_init_fn=_out_of_reach,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    for batch in loader:
        yield to_device(batch, device)


def _collate_shard(collate: BankCollate, rank: Rank, following_rows: int, items: Sequence[Any]) -> Batch:
    return collate(items, BatchShard.of(len(items), rank, following_rows).rows)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch to the device, except what is read number by number: reading it there would wait for the GPU."""
    return {
        name: each if name in READ_ONE_BY_ONE else each.to(device, non_blocking=True) for name, each in batch.items()
    }


def _out_of_reach(worker: int) -> None:
    """Leave the process group: Ctrl-C and ``torchrun`` signal all of it, but a training that stops still loads."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


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
        # One 63-bit number for the pair, so that epoch 1 of seed 0 is not epoch 0 of seed 1.
        mixed = self.seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB
        generator = torch.Generator().manual_seed(mixed % (1 << 63))
        order = torch.randperm(self.size, generator=generator).tolist()
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return batches of similar lengths, longest first: little padding, and running out of memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@torch.no_grad()
def predict_set(
    task: Task,
    items: Sequence[Any],
    batch_size: int = 64,
    *,
    amp: Amp = "none",
    workers: int = 0,
    clips: bool = False,
    after_batch: Callable[[], None] = lambda: None,
    group: Group = ALONE,
) -> Grounded:
    """Predict every item, in batches of like length. The model is left in eval mode.

    With ``clips``, the scores of clips are kept as well. ``after_batch`` is called equally often in every process; what
    it raises ends the evaluation. The processes of a ``group`` take turns with the batches; each gets all predictions.
    """
    model = task.model.eval()
    device = next(model.parameters()).device
    lengths = [task.collate.clips(item) for item in items]
    if not items:
        return Grounded(np.zeros((0, 1, 2)), np.zeros((0, 1)), [])
    indices = length_sorted(lengths, batch_size)
    turns = [indices[start :: group.size] for start in range(group.size)]
    mine = turns[group.rank.index]
    moments: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    relevance: list[np.ndarray] = []
    saliency: list[np.ndarray] = []
    for batch in batches(task.collate, items, mine, device, workers):
        with autocast(amp, device):
            prediction = task.predict(model, batch)
        moments.append(prediction.moments)
        scores.append(prediction.scores)
        if clips:
            relevance.extend(prediction.relevance.float().cpu().numpy())
        if clips and prediction.saliency is not None:
            saliency.extend(prediction.saliency.float().cpu().numpy())
        after_batch()
    if len(mine) < len(turns[0]):
        after_batch()
    # Read once, at the end: until here nothing waited for the device.
    answers = [[torch.cat(each).cpu().double().numpy()] if mine else [] for each in (moments, scores)]
    of_all = [[*chain(*parts)] for parts in zip(*group.gather([*answers, relevance, saliency]), strict=True)]
    place_of = np.argsort([index for turn in turns for chunk in turn for index in chunk])
    curves = (
        [curve[place][: lengths[index]] for index, place in enumerate(place_of)] if curve else []
        for curve in of_all[2:]
    )
    return Grounded(np.concatenate(of_all[0])[place_of], np.concatenate(of_all[1])[place_of], *curves)
