"""A video that several queries of a batch are about goes to the device, and through the base's projection, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin.integrations.task import Batch

INPUTS = ("video", "src_vid")
"""What the bases' batches call the clips' features."""
PROJECTIONS = ("video_affine", "input_vid_proj")
"""What the bases call the layer that reads them, and nothing but them."""


@dataclass
class Compact:
    """A batch with each video's clips once.

    batch: the clips are (U, T, D), everything else as it was; rows: (B,), which video each query is about; None
    where no two queries share one.
    """

    batch: Batch
    rows: Tensor | None

    @classmethod
    def of(cls, batch: Batch, videos: Sequence[int]) -> Compact:
        """videos: (B,) the number of each query's video."""
        first: dict[int, int] = {}
        for row, video in enumerate(videos):
            first.setdefault(video, row)
        if len(first) == len(videos):
            return cls(batch, None)
        place = {video: index for index, video in enumerate(first)}
        chosen = torch.tensor(list(first.values()))
        small = {name: value[chosen] if name in INPUTS else value for name, value in batch.items()}
        return cls(small, torch.tensor([place[video] for video in videos]))

    def pinned(self) -> Compact:
        """In memory that a GPU can read by itself."""
        rows = None if self.rows is None else self.rows.pin_memory()
        return Compact({name: value.pin_memory() for name, value in self.batch.items()}, rows)

    def to(self, device: torch.device) -> Compact:
        rows = None if self.rows is None else self.rows.to(device, non_blocking=True)
        return Compact({name: value.to(device, non_blocking=True) for name, value in self.batch.items()}, rows)


class ProjectOnce:
    """Runs a model on compact batches. The projection sees every video once, the rest of the model every query.

    Sums over a differently shaped batch are rounded differently; nothing else changes.
    """

    def __init__(self, model: nn.Module) -> None:
        base = getattr(model, "base", model)
        self.layers = [getattr(base, name) for name in PROJECTIONS if hasattr(base, name)]
        self._compact: Tensor | None = None
        self._rows: Tensor | None = None
        for layer in self.layers:
            layer.register_forward_pre_hook(self._shrink)
            layer.register_forward_hook(self._spread)

    def expand(self, compact: Compact) -> Batch:
        """The batch that the model takes; its next forward projects what ``compact`` holds."""
        self._rows, self._compact = compact.rows, None
        if compact.rows is None:
            return compact.batch
        batch = dict(compact.batch)
        for name in INPUTS:
            if name in batch:
                self._compact = batch[name]
                batch[name] = batch[name][compact.rows]
        return batch

    def _shrink(self, layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return given if self._rows is None else (self._compact, *given[1:])

    def _spread(self, layer: nn.Module, given: tuple[Any, ...], made: Tensor) -> Tensor:
        return made if self._rows is None else made[self._rows]
