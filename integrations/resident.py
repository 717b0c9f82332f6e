"""Clip features that wait on the GPU: a batch's are gathered there, and none are copied to it in a step."""

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
"""Of the memory that a GPU has free before training: what is more than that is left to the training."""


def fits_in_memory(size: int, device: torch.device) -> bool:
    """Whether so many bytes of features are few for a GPU. On a CPU they are where they belong already."""
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
        """flat: (all clips, dim)."""
        known = torch.from_numpy(flat)
        clips = torch.zeros(len(flat) + 1, flat.shape[1], dtype=known.dtype, device=device)
        clips[:-1].copy_(known)
        return cls(clips, torch.from_numpy(offsets).to(device))

    def on(self, device: torch.device) -> DeviceFeatures:
        return DeviceFeatures(self.clips.to(device), self.offsets.to(device))

    def gather(self, rows: Tensor, mask: Tensor) -> Tensor:
        """rows (R,) long, mask (R, T) bool, both on the device -> (R, T, dim) float32, zeros at padding."""
        steps = torch.arange(mask.shape[1], device=mask.device)
        places = torch.where(mask, self.offsets[rows].unsqueeze(1) + steps, len(self.clips) - 1)
        return F.embedding(places, self.clips).float()


@dataclass(frozen=True)
class DeviceBatch:
    """Stands for a batch's features until the batch is on the device. :meth:`to` makes them."""

    features: DeviceFeatures
    rows: Tensor
    mask: Tensor
    extra_features: Tensor | None = None
    """(R, T, any width) float32: what each clip has after its features."""

    @classmethod
    def of(
        cls, features: DeviceFeatures, rows: Sequence[int], mask: np.ndarray, extra_features: np.ndarray | None
    ) -> DeviceBatch:
        extra = None if extra_features is None else torch.from_numpy(extra_features)
        return cls(features, torch.tensor(rows, dtype=torch.long), torch.from_numpy(mask), extra)

    def pin_memory(self) -> DeviceBatch:
        """Called by ``DataLoader``, as a tensor's would be."""
        extra_features = None if self.extra_features is None else self.extra_features.pin_memory()
        return replace(self, rows=self.rows.pin_memory(), mask=self.mask.pin_memory(), extra_features=extra_features)

    def to(self, device: torch.device, non_blocking: bool = False) -> Tensor:
        """-> (R, T, dim, and of the extra features) float32 on the device."""
        rows, mask = (each.to(device, non_blocking=non_blocking) for each in (self.rows, self.mask))
        gathered = self.features.gather(rows, mask)
        if self.extra_features is None:
            return gathered
        return torch.cat([gathered, self.extra_features.to(device, non_blocking=non_blocking)], dim=-1)
