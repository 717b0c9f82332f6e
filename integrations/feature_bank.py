"""All videos' features in one array, so that making a batch is a single copy, or a lookup on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hero_plugin.integrations.features import FeatureStore
from hero_plugin.integrations.problems import DataError, Problem
from hero_plugin.integrations.resident import Place, ResidentBatch, ResidentFeatures, fits

Storage = Literal["auto", "float32", "float16", "disk"]


class FeatureBank:
    """The features of some videos, in memory or, where they are too large for it, read again each time.

    storage: ``auto`` keeps float32 where it fits into ``gigabytes``, else float16, else reads from disk.
        float16 halves the memory and rounds each number to about three digits.

    Raises:
        DataError: a video cannot be read, or float16 cannot hold it.
    """

    resident: ResidentFeatures | None = None
    """The features, where :meth:`settle` has moved them to a device."""

    def __init__(
        self,
        store: FeatureStore,
        videos: Iterable[str],
        *,
        storage: Storage = "auto",
        gigabytes: float = 4.0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.store, self.videos, self.dim = store, list(dict.fromkeys(videos)), store.dim
        arrays, self.lengths, size = [], [], 0
        for done, video in enumerate(self.videos, 1):
            array = store[video]
            self.lengths.append(len(array))
            size += array.size
            # Halved while reading once float32 is out of the question, and dropped once float16 is too.
            kind = _storage(storage, size, gigabytes)
            if kind == "disk":
                arrays.clear()
            else:
                arrays.append(_stored(array, kind, video))
            progress(done, len(self.videos))
        self.storage = _storage(storage, size, gigabytes)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self._flat: np.ndarray | None = None
        if self.storage != "disk":
            self._flat = np.empty((int(self.offsets[-1]), self.dim), self.storage)
            for index in range(len(arrays)):
                array = _stored(arrays[index], self.storage, self.videos[index])
                self._flat[self.offsets[index] : self.offsets[index + 1]] = array
                arrays[index] = None
        self.rows = {video: row for row, video in enumerate(self.videos)}

    def clips(self, row: int) -> int:
        return self.lengths[row]

    def settle(self, device: torch.device, place: Place = "auto") -> None:
        """Decide where the features wait: ``device`` is where the model is, ``host`` this machine's memory.

        ``auto`` is the device for a GPU with plenty of room for them. What stays on disk stays there. Whatever it is,
        batches hold the same numbers.
        """
        if self.resident is not None:
            self.resident = self.resident.on(device)
        elif self._flat is not None and (place == "device" or (place == "auto" and fits(self._flat.nbytes, device))):
            self.resident, self._flat = ResidentFeatures.of(self._flat, self.offsets[:-1], device), None

    @property
    def description(self) -> str:
        where = "" if self.resident is None else f" on {self.resident.clips.device}"
        return f"{self.storage} features{where}"

    def mask(self, rows: Sequence[int], clips: int = 0) -> np.ndarray:
        """(B, T) bool: which clips are real, of videos by row, T being the longest or ``clips``."""
        lengths = np.array([self.lengths[row] for row in rows])
        return np.arange(max(clips, lengths.max())) < lengths[:, None]

    def batch(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Features (B, T, dim) float32 with zeros for padding, and mask (B, T) bool, of videos by row."""
        mask = self.mask(rows)
        return self._array(rows, mask), mask

    def tensor(self, rows: Sequence[int], mask: np.ndarray, beside: np.ndarray | None = None) -> Tensor | ResidentBatch:
        """Features (B, T, dim) float32 of videos by row, zeros where ``mask`` is; or, on a device, what becomes them.

        beside: (B, T, any width) float32, comes after each clip's features.
        """
        if self.resident is not None:
            return ResidentBatch.of(self.resident, rows, mask, beside)
        features = self._array(rows, mask)
        return torch.from_numpy(features if beside is None else np.concatenate([features, beside], axis=-1))

    def _array(self, rows: Sequence[int], mask: np.ndarray) -> np.ndarray:
        features = np.zeros((*mask.shape, self.dim), np.float32)
        for index, row in enumerate(rows):
            features[index, : self.lengths[row]] = self._one(row)
        return features

    def _one(self, row: int) -> np.ndarray:
        if self._flat is None:
            return self.store[self.videos[row]]
        return self._flat[self.offsets[row] : self.offsets[row + 1]]


class BankCollate:
    """What making a batch of a bank's videos is for every base; items have ``video``, their row."""

    def __init__(self, bank: FeatureBank) -> None:
        self.bank = bank

    @property
    def elsewhere(self) -> bool:
        return self.bank.resident is None

    def clips(self, item: Any) -> int:
        return self.bank.clips(item.video)


def _stored(array: np.ndarray, kind: str, video: str) -> np.ndarray:
    """Raises ``DataError`` where float16, which ends at 65,504, cannot hold a number."""
    if array.dtype == kind:
        return array
    with np.errstate(over="ignore"):
        stored = array.astype(kind)
    if not np.isfinite(stored).all():
        what = "features beyond 65,504, which float16 cannot hold"
        raise DataError([Problem(f"video {video}", what, "give --storage disk, or float32, or more --memory")])
    return stored


def _storage(asked: Storage, numbers: int, gigabytes: float) -> str:
    if asked != "auto":
        return asked
    if numbers * 4 <= gigabytes * 1e9:
        return "float32"
    return "float16" if numbers * 2 <= gigabytes * 1e9 else "disk"
