"""Clip features per video: a folder of `VIDEO.npy` / `VIDEO.npz`, or one HDF5 file, or several of these side by side.

Every array that leaves a store is float32 `(clips, dim)`, finite, with at least one clip and of the store's width.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np

from hero_plugin.integrations.support.errors import DataError, Problem, Problems

__all__ = [
    "FeatureStore",
    "MemoryFeatures",
    "Pooling",
    "open_features",
    "sample_clips",
    "unit_length",
]

Pooling = Literal["mean", "subsample", "cut"]


@runtime_checkable
class FeatureStore(Protocol):
    """Clip features by video id."""

    @property
    def dim(self) -> int:
        """Return the width of a clip's feature."""
        ...

    def __contains__(self, video_id: object) -> bool: ...

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return float32 (clips, dim); raise ``DataError`` for an unknown video or an unusable array."""
        ...

    def keys(self) -> list[str]:
        """Return the videos, sorted."""
        ...


def open_features(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    max_clips: int | None = None,
    pooling: Pooling = "mean",
    normalize: bool = False,
    array: str = "features",
    cache: bool = False,
) -> FeatureStore:
    """Open clip features.

    Nothing is read before it is needed, except one array, for its width.

    Args:
        paths: A folder of ``VIDEO.npy`` or ``VIDEO.npz`` (array ``features``), or an ``.h5`` / ``.hdf5`` file with one
            dataset per video (at the top, or inside a group ``features``) or one group per video with a dataset
            ``features``. Several paths are concatenated along the width, as Moment-DETR does with SlowFast and CLIP;
            where their numbers of clips differ a little, the longer ones are cut (a difference of more than 2 and
            more than a tenth is an error).
        max_clips: Reduce longer videos to this many clips; see ``sample_clips``.
        pooling: How to reduce them.
        normalize: Scale each clip's features to length 1, each path separately, as Moment-DETR does.
        array: Name of the array in a ``.npz``.
        cache: Keep arrays in memory once read.

    Raises:
        FileNotFoundError: A path is missing.
        DataError: There are no features at all.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if not paths:
        raise ValueError("open_features needs at least one path")
    if max_clips is not None and max_clips < 1:
        raise ValueError(f"max_clips must be 1 or more, got {max_clips}")
    if pooling not in ("mean", "subsample", "cut"):
        raise ValueError(f'pooling must be "mean", "subsample" or "cut", got {pooling!r}')
    stores = [_open_one(Path(path), array) for path in paths]
    if normalize:
        stores = [_Normalized(store) for store in stores]
    store: FeatureStore = stores[0] if len(stores) == 1 else _SideBySide(stores)
    if max_clips is not None:
        store = _Sampled(store, max_clips, pooling)
    return _Cached(store) if cache else store


def sample_clips(features: np.ndarray, max_clips: int, pooling: Pooling = "mean") -> np.ndarray:
    """Reduce (clips, dim) to at most ``max_clips`` clips; fewer stay as they are.

    Args:
        features: (clips, dim).
        max_clips: Most clips to keep.
        pooling: "mean" averages the clips of each of ``max_clips`` equal stretches, with EMB's and VSLNet's rounding
            of their edges (visual_feature_sampling); "subsample" takes the clip in the middle of each stretch; "cut"
            takes the first ``max_clips``.
    """
    clips = len(features)
    if clips <= max_clips:
        return features
    if pooling == "cut":
        return features[:max_clips]
    if pooling == "subsample":
        return features[((np.arange(max_clips) + 0.5) * clips / max_clips).astype(np.int64)]
    if pooling != "mean":
        raise ValueError(f'pooling must be "mean", "subsample" or "cut", got {pooling!r}')
    edges = np.round(np.arange(max_clips + 1) / max_clips * clips).astype(np.int64)
    edges = np.minimum(edges, clips - 1)  # upstream's, and so its last clip never counts
    first, last = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
    totals = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, axis=0, dtype=np.float64)])
    return ((totals[last] - totals[first]) / (last - first)[:, None]).astype(features.dtype)


class MemoryFeatures:
    """A store over arrays in memory, for tests and demonstrations: ``{video: (clips, dim)}``."""

    def __init__(self, arrays: dict[str, np.ndarray], name: str = "features in memory") -> None:
        if not arrays:
            raise DataError([Problem(name, "no videos", "give at least one array")])
        self._arrays, self._name = arrays, name
        self.dim = int(np.shape(next(iter(arrays.values())))[-1])

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._arrays

    def keys(self) -> list[str]:
        """Return the videos, sorted."""
        return sorted(self._arrays)

    def __getitem__(self, video_id: str) -> np.ndarray:
        if video_id not in self._arrays:
            raise _unknown(video_id, self._name, self._arrays)
        return _validated(self._arrays[video_id], f"{self._name}: video {video_id}", self.dim, "the first video")


class _Folder:
    """A folder of ``VIDEO.npy`` or ``VIDEO.npz`` files."""

    def __init__(self, path: Path, array: str) -> None:
        self._path, self._array = path, array
        self._files: dict[str, Path] = {}
        problems = Problems()
        with os.scandir(path) as entries:
            found = sorted(e.name for e in entries if e.name.endswith((".npy", ".npz")) and not e.name.startswith("."))
        for name in found:
            video = name[:-4]
            if video in self._files:
                what = f"both {self._files[video].name} and {name}"
                problems.add(f"{path}: video {video}", what, "keep one of the two files")
            self._files[video] = path / name
        problems.raise_if_any()
        if not found:
            raise DataError([Problem(str(path), "no .npy or .npz files in this folder", "expected VIDEO.npy files")])
        self.dim, self._model = _first_width(self, list(self._files))

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._files

    def keys(self) -> list[str]:
        return sorted(self._files)

    def __getitem__(self, video_id: str) -> np.ndarray:
        file = self._files.get(video_id)
        if file is None:
            raise _unknown(video_id, str(self._path), self._files)
        return _validated(self._load(file), str(file), self.dim, self._model)

    def width(self, video_id: str) -> int:
        """Return the width of one video's array, from the file's header where that is enough."""
        return _width(self._load(self._files[video_id]), str(self._files[video_id]))

    def _load(self, file: Path) -> np.ndarray:
        # Threads that read headers of .npy files at once now and then meet a race in CPython's parser (gh-106905, in
        # Python 3.11 and 3.12 until 2024), which raises SystemError. The file is fine: it is read again.
        for _ in range(8):
            with contextlib.suppress(SystemError):
                return self._load_once(file)
        return self._load_once(file)

    def _load_once(self, file: Path) -> np.ndarray:
        again = "the file may be truncated or damaged: extract or copy it again"
        try:
            if file.suffix == ".npy":
                return np.load(file, mmap_mode="r", allow_pickle=False)
            with np.load(file, allow_pickle=False) as archive:
                if self._array in archive.files:
                    return np.asarray(archive[self._array])
                what = f"no array `{self._array}`, it has {archive.files}"
        except FileNotFoundError as error:
            raise DataError([Problem(str(file), "the file has disappeared", "open the folder again")]) from error
        except (OSError, ValueError, EOFError, BadZipFile, KeyError, SyntaxError) as error:
            reason = "not an array of numbers" if "ickle" in str(error) or "objects" in str(error) else str(error)
            raise DataError([Problem(str(file), f"cannot be read ({reason})", again)]) from error
        except Exception as error:
            if type(error).__module__ != "zlib":
                raise
            raise DataError([Problem(str(file), f"cannot be read ({error})", again)]) from error
        raise DataError([Problem(str(file), what, f"save it with np.savez(file, {self._array}=array)")])


class _Hdf5:
    """One HDF5 file. Opened anew in every process, because handles do not survive a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: Any = None
        self._process = -1
        file = self._file()
        group = file["features"] if "features" in file and hasattr(file["features"], "keys") else file
        self._prefix = "" if group is file else "features/"
        self._videos: dict[str, str] = {}
        for name in group:
            entry = group[name]
            if not hasattr(entry, "keys"):
                self._videos[name] = f"{self._prefix}{name}"
            elif "features" in entry:
                self._videos[name] = f"{self._prefix}{name}/features"
        if not self._videos:
            what = f"no datasets of videos found; at the top it has {list(file)[:5]}"
            raise DataError([Problem(str(path), what, "expected one dataset per video, or VIDEO/features")])
        self.dim, self._model = _first_width(self, list(self._videos))

    def _file(self) -> Any:
        if self._handle is None or self._process != os.getpid():
            try:
                import h5py
            except ImportError as error:
                raise ImportError("HDF5 features need h5py: pip install 'hero-plugin[train]'") from error
            try:
                self._handle = h5py.File(self._path, "r")
            except OSError as error:
                fix = "the file may be truncated or no HDF5 file: copy or extract it again"
                raise DataError([Problem(str(self._path), f"cannot be opened ({error})", fix)]) from error
            self._process = os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_process": -1}

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._videos

    def keys(self) -> list[str]:
        return sorted(self._videos)

    def _dataset(self, video_id: str) -> Any:
        return self._file()[self._videos[video_id]]

    def __getitem__(self, video_id: str) -> np.ndarray:
        if video_id not in self._videos:
            raise _unknown(video_id, str(self._path), self._videos)
        where = f"{self._path}: video {video_id}"
        try:
            array = self._dataset(video_id)[()]
        except (OSError, KeyError, RuntimeError) as error:
            fix = "the file may be truncated or damaged: copy or extract it again"
            raise DataError([Problem(where, f"cannot be read ({error})", fix)]) from error
        return _validated(array, where, self.dim, self._model)

    def width(self, video_id: str) -> int:
        """Return the width of one video's dataset, without reading it."""
        return _width(self._dataset(video_id), f"{self._path}: video {video_id}")


class _SideBySide:
    """Several stores, concatenated along the width."""

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        self._stores = stores
        self.dim = sum(store.dim for store in stores)
        self._keys = sorted(set.intersection(*(set(store.keys()) for store in stores)))

    def __contains__(self, video_id: object) -> bool:
        return all(video_id in store for store in self._stores)

    def keys(self) -> list[str]:
        return list(self._keys)

    def __getitem__(self, video_id: str) -> np.ndarray:
        parts, problems = [], []
        for store in self._stores:
            try:
                parts.append(store[video_id])
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        counts = [len(part) for part in parts]
        if max(counts) - min(counts) > max(2, max(counts) // 10):
            what = f"the feature sets disagree about the number of clips: {counts}"
            fix = "they must have the same clip length: extract them again"
            raise DataError([Problem(f"video {video_id}", what, fix)])
        return np.concatenate([part[: min(counts)] for part in parts], axis=1)


class _Around:
    """The videos of another store, seen differently."""

    def __init__(self, store: FeatureStore) -> None:
        self._store, self.dim = store, store.dim

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._store

    def keys(self) -> list[str]:
        return self._store.keys()


class _Sampled(_Around):
    """A store whose long videos are reduced to `max_clips`."""

    def __init__(self, store: FeatureStore, max_clips: int, pooling: Pooling) -> None:
        super().__init__(store)
        self._max_clips, self._pooling = max_clips, pooling

    def __getitem__(self, video_id: str) -> np.ndarray:
        return sample_clips(self._store[video_id], self._max_clips, self._pooling)


class _Normalized(_Around):
    """A store whose clips have features of length 1."""

    def __getitem__(self, video_id: str) -> np.ndarray:
        return unit_length(self._store[video_id])


class _Cached(_Around):
    """A store that remembers."""

    def __init__(self, store: FeatureStore) -> None:
        super().__init__(store)
        self._seen: dict[str, np.ndarray] = {}

    def __getitem__(self, video_id: str) -> np.ndarray:
        array = self._seen.get(video_id)
        if array is None:
            array = self._seen[video_id] = self._store[video_id]
            array.setflags(write=False)  # two callers share it
        return array


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Return rows (..., dim) divided by their lengths, with Moment-DETR's guard against rows of zeros."""
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-5)


def _open_one(path: Path, array: str) -> FeatureStore:
    if path.is_dir():
        return _Folder(path, array)
    if not path.is_file():
        raise FileNotFoundError(f"no features at {path}: expected a folder of VIDEO.npy files or an .h5 file")
    if path.suffix.lower() in (".h5", ".hdf5", ".hdf"):
        return _Hdf5(path)
    what = f"a file of the kind {path.suffix or 'without a suffix'}"
    raise DataError([Problem(str(path), what, "expected a folder of VIDEO.npy / VIDEO.npz files, or an .h5 file")])


def _first_width(store: _Folder | _Hdf5, videos: list[str]) -> tuple[int, str]:
    """Width and name of the first video whose array can be read; the others must agree with it."""
    problems: list[Problem] = []
    for video in videos:
        try:
            return store.width(video), video
        except DataError as error:
            problems += error.problems
    raise DataError(problems)


def _width(array: Any, where: str) -> int:
    if len(array.shape) != 2:
        raise DataError([Problem(where, f"expected features (clips, dim), got shape {tuple(array.shape)}", _AGAIN)])
    return int(array.shape[1])


_AGAIN = "extract this video's features again"


def _validated(array: np.ndarray, where: str, dim: int, model: str) -> np.ndarray:
    """float32 (clips, dim), or a DataError that says what is wrong."""
    if array.dtype.kind not in "fiu":
        raise DataError([Problem(where, f"expected an array of numbers, got {array.dtype}", _AGAIN)])
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] == 0:
        what = "no clips" if array.ndim == 2 else f"expected features (clips, dim), got shape {array.shape}"
        raise DataError([Problem(where, what, _AGAIN)])
    if array.shape[1] != dim:
        what = f"features are {array.shape[1]} wide, expected {dim} as in {model}"
        raise DataError([Problem(where, what, "use one kind of features per folder")])
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is reported below
        values = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(values).all():
        rows = np.nonzero(~np.isfinite(values).all(axis=1))[0]
        kinds = " and ".join(n for n, bad in (("NaN", np.isnan(values)), ("infinity", np.isinf(values))) if bad.any())
        what = f"{kinds} in {len(rows)} of {len(values)} clips, the first is clip {rows[0]}"
        raise DataError([Problem(where, what, _AGAIN)])
    return values


def _unknown(video_id: object, where: str, videos: Iterable[str]) -> DataError:
    names = sorted(videos)
    near = difflib.get_close_matches(str(video_id), names, n=3)
    shown = f"the nearest names are {', '.join(near)}" if near else f"its names look like {', '.join(names[:3])}"
    what = f"no features of video {video_id!r} among {len(names)} videos; {shown}"
    return DataError([Problem(where, what, "extract them, or leave the video's queries out")])
