"""Clip features kept on the GPU: batches are gathered there, and no step copies any to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Place = Literal["auto", "device", "host"]

DEVICE_SHARE = 0.25
"""Share of a GPU's free memory that features may take; the rest is left to the training."""


def fits_in_memory(size: int, device: torch.device) -> bool:
    """Return whether ``size`` bytes of features are few for a GPU; false on a CPU, where they already are."""
    if device.type != "cuda":
        return False
    # By number: older torch refuses a device without one here.
    index = torch.cuda.current_device() if device.index is None else device.index
    return size <= DEVICE_SHARE * torch.cuda.mem_get_info(index)[0]


@dataclass(frozen=True)
class DeviceFeatures:
    """The features of several videos, one after the other in one tensor on a device."""

    clips: Tensor
    """(all clips + 1, dim) float32 or float16, the last row zeros."""
    offsets: Tensor
    """(videos,) long: where each begins."""

    @classmethod
    def of(cls, flat: np.ndarray, offsets: np.ndarray, device: torch.device) -> DeviceFeatures:
        """Copy features ``flat`` (all clips, dim) to a device; ``offsets`` (videos,) say where each video begins."""
        known = torch.from_numpy(flat)
        clips = torch.zeros(len(flat) + 1, flat.shape[1], dtype=known.dtype, device=device)
        clips[:-1].copy_(known)
        return cls(clips, torch.from_numpy(offsets).to(device))

    def on(self, device: torch.device) -> DeviceFeatures:
        """Return these features on another device."""
        return DeviceFeatures(self.clips.to(device), self.offsets.to(device))

    def gather(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Return the features (R, T, dim) float32 of rows (R,) long with zeros where mask (R, T) bool is false."""
        steps = torch.arange(mask.shape[1], device=mask.device)
        places = torch.where(mask, self.offsets[rows].unsqueeze(1) + steps, len(self.clips) - 1)
        return F.embedding(places, self.clips).float()


@dataclass(frozen=True)
class DeviceBatch:
    """A placeholder for a batch's features until the batch is on the device: ``to`` makes them."""

    features: DeviceFeatures
    rows: Tensor
    mask: Tensor
    extra_features: Tensor | None = None
    """(R, T, any width) float32, appended to each clip's features."""

    @classmethod
    def of(
        cls, features: DeviceFeatures, rows: Sequence[int], mask: np.ndarray, extra_features: np.ndarray | None
    ) -> DeviceBatch:
        extra = None if extra_features is None else torch.from_numpy(extra_features)
        return cls(features, torch.tensor(rows, dtype=torch.long), torch.from_numpy(mask), extra)

    def pin_memory(self) -> DeviceBatch:
        """Pin the parts on the host; ``DataLoader`` calls it as it calls a tensor's."""
        extra_features = None if self.extra_features is None else self.extra_features.pin_memory()
        return replace(self, rows=self.rows.pin_memory(), mask=self.mask.pin_memory(), extra_features=extra_features)

    def to(self, device: torch.device, non_blocking: bool = False) -> Tensor:
        """Return (R, T, dim + extra) float32 on the device."""
        rows, mask = (each.to(device, non_blocking=non_blocking) for each in (self.rows, self.mask))
        gathered = self.features.gather(rows, mask)
        if self.extra_features is None:
            return gathered
        return torch.cat([gathered, self.extra_features.to(device, non_blocking=non_blocking)], dim=-1)
