"""Banks of clip features, from which batches are made, and manifests, which say what made a folder of features.

A manifest is ``manifest.json`` beside the features. A run keeps it, and refuses other features.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hero_plugin.integrations.data.features import FeatureStore
from hero_plugin.integrations.support.errors import DataError, Problem, UserError
from hero_plugin.integrations.support.files import checksum

Storage = Literal["auto", "float32", "float16", "disk"]
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
    """The features of several videos, one after the other in one tensor on a device, where batches are gathered."""

    clips: Tensor
    """(all clips + 1, dim) float32 or float16, the last row zeros."""
    offsets: Tensor
    """(videos,) long: where each begins."""

    @classmethod
    def of(cls, flat: np.ndarray, offsets: np.ndarray, device: torch.device) -> "DeviceFeatures":
        """Copy features ``flat`` (all clips, dim) to a device; ``offsets`` (videos,) say where each video begins."""
        known = torch.from_numpy(flat)
        clips = torch.zeros(len(flat) + 1, flat.shape[1], dtype=known.dtype, device=device)
        clips[:-1].copy_(known)
        return cls(clips, torch.from_numpy(offsets).to(device))


@dataclass(frozen=True)
class DeviceBatch:
    """A placeholder for a batch's features until the batch is on the device: ``to`` makes them."""

    features: DeviceFeatures
    rows: Tensor
    """(R,) long."""
    mask: Tensor
    """(R, T) bool: which clips are real; the others have zeros."""
    extra_features: Tensor | None = None
    """(R, T, any width) float32, appended to each clip's features."""

    def pin_memory(self) -> "DeviceBatch":
        """Pin the parts on the host; ``DataLoader`` calls it as it calls a tensor's."""
        extra = None if self.extra_features is None else self.extra_features.pin_memory()
        return replace(self, rows=self.rows.pin_memory(), mask=self.mask.pin_memory(), extra_features=extra)

    def to(self, device: torch.device, non_blocking: bool = False) -> Tensor:
        """Return (R, T, dim + extra) float32 on the device."""
        rows, mask = (each.to(device, non_blocking=non_blocking) for each in (self.rows, self.mask))
        steps = torch.arange(mask.shape[1], device=mask.device)
        places = torch.where(mask, self.features.offsets[rows].unsqueeze(1) + steps, len(self.features.clips) - 1)
        gathered = F.embedding(places, self.features.clips).float()
        if self.extra_features is None:
            return gathered
        return torch.cat([gathered, self.extra_features.to(device, non_blocking=non_blocking)], dim=-1)


class FeatureBank(ABC):
    """The clip features of some videos, looked up by row and padded into batches.

    ``videos`` are ids, each once; a video's row is its place there. ``lengths`` are their numbers of clips.
    """

    device_features: DeviceFeatures | None = None
    """The features on a device, where they wait on one."""

    def __init__(self, videos: Sequence[str], lengths: Sequence[int], dim: int) -> None:
        self.videos, self.lengths, self.dim = list(videos), list(lengths), dim
        self.rows = {video: row for row, video in enumerate(self.videos)}

    @abstractmethod
    def array(self, row: int) -> np.ndarray:
        """Return the features (clips, dim) of the video in a row."""

    def clips(self, row: int) -> int:
        """Return the number of clips of the video in a row."""
        return self.lengths[row]

    def mask(self, rows: Sequence[int], clips: int = 0) -> np.ndarray:
        """Return which clips are real, (B, T) bool, of the videos in ``rows``.

        T is the longest of their lengths, or ``clips`` where that is more.
        """
        lengths = np.array([self.lengths[row] for row in rows])
        return np.arange(max(clips, lengths.max())) < lengths[:, None]

    def batch(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return features (B, T, dim) float32 with zeros for padding, and their mask (B, T) bool."""
        mask = self.mask(rows)
        return self._padded(rows, mask), mask

    def tensor(
        self, rows: Sequence[int], mask: np.ndarray, extra_features: np.ndarray | None = None
    ) -> Tensor | DeviceBatch:
        """Return features (B, T, dim) float32 with zeros where ``mask``, as of ``FeatureBank.mask``, is False.

        ``extra_features`` (B, T, any width) float32 are appended to each clip's. Where the features wait on a device,
        it is a ``DeviceBatch`` that becomes the tensor there.
        """
        if self.device_features is not None:
            extra = None if extra_features is None else torch.from_numpy(extra_features)
            on_device = torch.tensor(rows, dtype=torch.long), torch.from_numpy(mask)
            return DeviceBatch(self.device_features, *on_device, extra)
        features = self._padded(rows, mask)
        if extra_features is not None:
            features = np.concatenate([features, extra_features], axis=-1)
        return torch.from_numpy(features)

    def _padded(self, rows: Sequence[int], mask: np.ndarray) -> np.ndarray:
        features = np.zeros((*mask.shape, self.dim), np.float32)
        for index, row in enumerate(rows):
            features[index, : self.lengths[row]] = self.array(row)
        return features


class ArrayBank(FeatureBank):
    """A bank of arrays (clips, dim) by video that are in memory already."""

    def __init__(self, arrays: Mapping[str, np.ndarray], dim: int) -> None:
        super().__init__(list(arrays), [len(array) for array in arrays.values()], dim)
        self._arrays = list(arrays.values())

    def array(self, row: int) -> np.ndarray:
        """Return the features (clips, dim) of the video in a row."""
        return self._arrays[row]


class StoreBank(FeatureBank):
    """A bank of videos of a store, kept in one array so that making a batch is a single copy.

    Args:
        store: The features of all videos.
        videos: Ids of the videos to hold.
        storage: ``auto`` keeps float32 where it fits into ``gigabytes``, else float16, else reads from disk each time.
            float16 halves the memory and rounds each number to about three digits.
        gigabytes: Memory that ``auto`` may use.
        progress: Called with the number of videos read and their total.

    Raises:
        DataError: A video cannot be read, or float16 cannot hold it.
    """

    def __init__(
        self,
        store: FeatureStore,
        videos: Iterable[str],
        *,
        storage: Storage = "auto",
        gigabytes: float = 4.0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.store, videos = store, list(dict.fromkeys(videos))
        arrays: list[np.ndarray] = []
        lengths, size = [], 0
        for done, video in enumerate(videos, 1):
            array = store[video]
            lengths.append(len(array))
            size += array.size
            # Halved while reading once float32 is out of the question, and dropped once float16 is too.
            kind = _storage(storage, size, gigabytes)
            if kind == "disk":
                arrays.clear()
            else:
                arrays.append(_stored(array, kind, video))
            progress(done, len(videos))
        super().__init__(videos, lengths, store.dim)
        self.storage = _storage(storage, size, gigabytes)
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._flat: np.ndarray | None = None
        if self.storage != "disk":
            self._flat = np.empty((int(self.offsets[-1]), self.dim), self.storage)
            arrays.reverse()
            for (start, end), video in zip(pairwise(self.offsets), videos, strict=True):
                self._flat[start:end] = _stored(arrays.pop(), self.storage, video)  # and free it

    def array(self, row: int) -> np.ndarray:
        """Return the features (clips, dim) of the video in a row."""
        if self._flat is None:
            return self.store[self.videos[row]]
        return self._flat[self.offsets[row] : self.offsets[row + 1]]

    def settle(self, device: torch.device, place: Place = "auto") -> None:
        """Choose where the features wait, for a model on ``device``; batches hold the same numbers either way.

        The place is ``device``, ``host`` (this machine's memory), or ``auto``: the device, for a GPU with plenty of
        room for them. What stays on disk stays there.
        """
        if (known := self.device_features) is not None:
            self.device_features = DeviceFeatures(known.clips.to(device), known.offsets.to(device))
        elif self._flat is not None and (
            place == "device" or (place == "auto" and fits_in_memory(self._flat.nbytes, device))
        ):
            self.device_features, self._flat = DeviceFeatures.of(self._flat, self.offsets[:-1], device), None

    @property
    def description(self) -> str:
        """How and where the features are kept, for people."""
        where = "" if self.device_features is None else f" on {self.device_features.clips.device}"
        return f"{self.storage} features{where}"


class BankCollate(ABC):
    """The base class of collate functions: examples have ``video``, a row of the bank.

    Apart from the model, so that loading processes can hold it.
    """

    def __init__(self, bank: FeatureBank) -> None:
        self.bank = bank

    @abstractmethod
    def __call__(self, items: Sequence[Any], rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Make a batch of examples.

        The model's inputs are of ``rows`` alone, those that the model runs here where several processes share a batch
        (None is all), and as wide as all items need; what the losses read is of all items. Features on the device come
        as a ``DeviceBatch``, whose ``to`` makes their tensor.
        """

    @property
    def parallelizable(self) -> bool:
        """Whether other processes can make its batches: not where these are made of what is on a GPU."""
        return self.bank.device_features is None

    def clips(self, item: Any) -> int:
        """Return the number of clips of an example's video."""
        return self.bank.clips(item.video)


def _stored(array: np.ndarray, kind: str, video: str) -> np.ndarray:
    """Convert features; raise ``DataError`` where float16, which ends at 65,504, cannot hold a number."""
    if array.dtype == kind:
        return array
    with np.errstate(over="ignore"):
        stored = array.astype(kind)
    if not np.isfinite(stored).all():
        what = "features beyond 65,504, which float16 cannot hold"
        raise DataError([Problem(f"video {video}", what, "give --storage disk, or float32, or more --memory")])
    return stored


def _storage(requested: Storage, numbers: int, gigabytes: float) -> str:
    if requested != "auto":
        return requested
    if numbers * 4 <= gigabytes * 1e9:
        return "float32"
    return "float16" if numbers * 2 <= gigabytes * 1e9 else "disk"


Manifest = Mapping[str, Any]
MANIFEST = "manifest.json"
MANIFEST_KIND = "features of hero-plugin data extract"
"""Under ``what``: other tools write files of this name, too."""
ENCODER_KEYS = ("weights", "source", "width", "frames_per_second", "size", "fit", "mean", "std")
"""Of an encoder, what its features depend on. Its name may be the path of a copy: weights say more, if there are."""


def make_manifest(encoders: Sequence[Manifest], **rate: Any) -> dict[str, Any]:
    """Return a manifest: the encoders, side by side, and for clips ``clip_seconds`` and ``pooling``."""
    return {"what": MANIFEST_KIND, "encoders": [dict(each) for each in encoders], **rate}


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest of a feature folder or a ``.npz`` word table, None without; ``UserError`` if unreadable."""
    try:
        if path.is_dir() and (path / MANIFEST).is_file():
            found = json.loads((path / MANIFEST).read_text("utf-8"))
        elif path.suffix == ".npz" and path.is_file():
            with np.load(path, allow_pickle=False) as archive:
                found = json.loads(str(archive["manifest"])) if "manifest" in archive.files else None
        else:
            return None
    except (OSError, ValueError, BadZipFile) as error:
        raise UserError(f"the manifest of {path} cannot be read ({error}): extract these features again") from error
    return found if isinstance(found, dict) and found.get("what") == MANIFEST_KIND else None


def manifest_marks(paths: Iterable[Path]) -> list[str | None]:
    """Return a mark of each feature folder's manifest as it is now, whatever made it; None where there is none.

    It tells that features were made anew under the same path, without reading all of them. Other tools leave a file of
    this name, too, such as ``data timelines``.
    """
    files = [path / MANIFEST for path in paths]
    return [checksum(file)[:16] if file.is_file() else None for file in files]


def rendering_mark(path: Path) -> str | None:
    """Return a mark of what made features by the manifest of another tool than ``data extract``, as ``data timelines``.

    It stays where videos are added. None where there is no such manifest.
    """
    file = path / MANIFEST
    try:
        found = json.loads(file.read_text("utf-8")) if file.is_file() else None
    except ValueError:
        return checksum(file)
    if not isinstance(found, dict) or found.get("what") == MANIFEST_KIND:
        return None
    notes = ("videos", "clips", "complete", "numpy", "sources")
    made = {key: value for key, value in found.items() if key not in notes}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def manifest_difference(wanted: Manifest | None, found: Manifest | None) -> str:
    """Say how two manifests differ in what features depend on; "" where they do not, or one is not known."""
    if wanted is None or found is None or _manifest_essence(wanted) == _manifest_essence(found):
        return ""
    return f"{describe_manifest(found)}, and not {describe_manifest(wanted)}"


def describe_manifest(manifest: Manifest) -> str:
    """Describe encoders and rate for people."""
    parts = []
    for each in manifest["encoders"]:
        facts = [f"{key} {each[key]}" for key in ("weights", "source") if each.get(key)]
        facts += [f"layers {', '.join(map(str, each['layers']))}"] if each.get("layers") else []
        if "clip_seconds" in manifest:
            facts += [
                f"{each['frames_per_second']:g} frames per second",
                f"{each['size'] or 'all'} pixels {each['fit']}",
            ]
        parts.append(f"{each['name']} ({', '.join(facts)})" if facts else each["name"])
    rate = f", a clip every {manifest['clip_seconds']:g} s" if "clip_seconds" in manifest else ""
    return " + ".join(parts) + rate


def _manifest_essence(manifest: Manifest) -> Any:
    clips = "clip_seconds" in manifest
    encoders = []
    for each in manifest["encoders"]:
        keys = ENCODER_KEYS if clips else ("weights", "layers")
        name = None if each.get("weights") else each["name"]
        encoders.append([name, *(each.get(key) for key in keys)])
    return json.loads(json.dumps([encoders, manifest.get("clip_seconds"), manifest.get("pooling")]))
