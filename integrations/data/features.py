"""Clip features per video: folders of a file per video, HDF5 files, or several of these side by side.

Every array that leaves a store is float32 (clips, dim), finite, with at least one clip and of the store's width.
"""

import contextlib
import difflib
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import PickleError
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from hero_plugin.integrations.data.records import clean_sentence
from hero_plugin.integrations.support.errors import DataError, Problem, Problems

Pooling = Literal["mean", "subsample", "cut"]
Rows = Literal["clips", "words"]
_SUFFIXES = (".npy", ".npz", ".pt")
_EXPECTED = "a folder of VIDEO.npy, VIDEO.npz or VIDEO.pt files, or an .h5 file"


class FeatureStore(ABC):
    """Clip features by video id."""

    dim: int
    """Width of a clip's feature."""

    @property
    def widths(self) -> list[int]:
        """The widths of the places that lie side by side in a clip's feature."""
        return [self.dim]

    @abstractmethod
    def __contains__(self, video_id: object) -> bool: ...

    @abstractmethod
    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return float32 (clips, dim); raise ``DataError`` for an unknown video or an unusable array."""

    @abstractmethod
    def keys(self) -> list[str]:
        """Return the videos, sorted."""

    @abstractmethod
    def lacking(self, video_id: str) -> list[str]:
        """Return the names of the places that have no features of a video."""


Source = str | os.PathLike[str] | Mapping[str, np.ndarray]
"""A folder or a file of features, or arrays (clips, dim) by video."""


def open_features(
    paths: Source | Sequence[Source],
    *,
    max_clips: int | None = None,
    pooling: Pooling = "mean",
    normalize: bool = False,
    array: str = "features",
    rows: Rows = "clips",
) -> FeatureStore:
    """Open clip features.

    Nothing is read before it is needed, except one array, for its width.

    Args:
        paths: A folder of ``VIDEO.npy``, ``VIDEO.npz`` or ``VIDEO.pt`` (one array, or several and ``features``), or
            an ``.h5`` / ``.hdf5`` file with one dataset per video (at the top, or inside a group ``features``) or one
            group per video with a dataset ``features``, or with one of two axes alone; or arrays in memory, ``{video:
            (clips, dim)}``. A leading axis of one, (1, clips, dim), is dropped. Several paths are concatenated along
            the width, as Moment-DETR does with SlowFast and CLIP; where their numbers of clips differ a little, the
            longer ones are cut (a difference of more than 2 and more than a tenth is an error).
        max_clips: Reduce longer videos to this many clips; see ``sample_clips``.
        pooling: How to reduce them.
        normalize: Scale each clip's features to length 1, each path separately, as Moment-DETR does.
        array: Name of the array in a file, or a group, of several.
        rows: What the rows are, for errors: features of words lie in such folders, too, one file per query.

    Raises:
        FileNotFoundError: A path is missing.
        DataError: There are no features at all.
    """
    if isinstance(paths, str | os.PathLike | Mapping):
        paths = [paths]
    if not paths:
        raise ValueError("open_features needs at least one path")
    if max_clips is not None and max_clips < 1:
        raise ValueError(f"max_clips must be 1 or more, got {max_clips}")
    _check(pooling)
    stores = [
        MemoryFeatures(dict(path)) if isinstance(path, Mapping) else _open_one(Path(path), array, rows)
        for path in paths
    ]
    return _SideBySide(stores, max_clips, pooling, normalize)


def _open_one(path: Path, array: str, rows: Rows) -> FeatureStore:
    if path.is_dir():
        return _Folder(path, array, rows)
    if not path.is_file():
        raise FileNotFoundError(f"no features at {path}: expected {_EXPECTED}")
    if path.suffix.lower() in (".h5", ".hdf5", ".hdf"):
        return _Hdf5(path, array, rows)
    what = f"a file of the kind {path.suffix or 'without a suffix'}"
    raise DataError([Problem(str(path), what, f"expected {_EXPECTED}")])


def sample_clips(features: np.ndarray, max_clips: int, pooling: Pooling = "mean") -> np.ndarray:
    """Reduce (clips, dim) to at most ``max_clips`` clips; fewer stay as they are.

    ``pooling`` "mean" averages the clips of each of ``max_clips`` equal stretches, with EMB's and VSLNet's rounding of
    their edges (visual_feature_sampling); "subsample" takes the clip in the middle of each stretch; "cut" takes the
    first ``max_clips``.
    """
    clips = len(features)
    if clips <= max_clips:
        return features
    if pooling == "cut":
        return features[:max_clips]
    if pooling == "subsample":
        return features[((np.arange(max_clips) + 0.5) * clips / max_clips).astype(np.int64)]
    _check(pooling)
    edges = np.round(np.arange(max_clips + 1) / max_clips * clips).astype(np.int64)
    edges = np.minimum(edges, clips - 1)  # upstream's, and so its last clip never counts
    first, last = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
    totals = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, axis=0, dtype=np.float64)])
    return ((totals[last] - totals[first]) / (last - first)[:, None]).astype(features.dtype)


def _check(pooling: str) -> None:
    if pooling not in ("mean", "subsample", "cut"):
        raise ValueError(f'pooling must be "mean", "subsample" or "cut", got {pooling!r}')


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Return rows (..., dim) divided by their lengths, with Moment-DETR's guard against rows of zeros."""
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-5)


class _ByVideo(dict[str, Any]):
    """What there is by video; TACoS' annotations say ``s1-d1.avi`` where its features may be called ``s1-d1``."""

    def __contains__(self, video: object) -> bool:
        return super().__contains__(video) or super().__contains__(str(video).removesuffix(".avi"))

    def __missing__(self, video: str) -> Any:
        bare = video.removesuffix(".avi")
        if bare == video:
            raise KeyError(video)
        return self[bare]


class _Store(FeatureStore):
    """The base class of stores of one place: looks videos up, and checks what is read."""

    def __init__(self, name: str, videos: Mapping[str, Any], rows: Rows = "clips") -> None:
        self._name, self._videos, self._rows = name, _ByVideo(videos), rows
        self._thing = "video" if rows == "clips" else "query"
        self._again = f"extract this {self._thing}'s features again"
        self._model = f"the first {self._thing}"

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._videos

    def keys(self) -> list[str]:
        return sorted(self._videos)

    def __getitem__(self, video_id: str) -> np.ndarray:
        if video_id not in self._videos:
            near = difflib.get_close_matches(str(video_id), self.keys(), n=3)
            names = ", ".join(near or self.keys()[:3])
            shown = f"the nearest names are {names}" if near else f"its names look like {names}"
            count = f"{len(self._videos)} {'videos' if self._rows == 'clips' else 'queries'}"
            what = f"no features of {self._thing} {video_id!r} among {count}; {shown}"
            fix = "leave the video's queries out" if self._rows == "clips" else "leave the query out"
            raise DataError([Problem(self._name, what, f"extract them, or {fix}")])
        return self._validated(self._read(video_id), self._where(video_id))

    def _open(self, video_id: str) -> Any:
        """Return something with the shape of the video's array, reading no more than needed."""
        return self._videos[video_id]

    def _read(self, video_id: str) -> np.ndarray:
        return self._open(video_id)

    def _where(self, video_id: str) -> str:
        return f"{self._name}: {self._thing} {video_id}"

    def lacking(self, video_id: str) -> list[str]:
        return [] if video_id in self._videos else [self._name]

    def _find_width(self) -> None:
        """Take the width of the first video whose array can be opened; the others must agree with it."""
        problems = Problems()
        for video in self._videos:
            with problems.collecting():
                shape: tuple[int, ...] = _without_axis_of_one(self._open(video).shape)
                if len(shape) == 2:
                    self.dim, self._model = int(shape[1]), video
                    return
                what = f"expected features ({self._rows}, dim), got shape {shape}"
                problems.add(self._where(video), what, f"average or drop its other axes, or {self._again}")
        problems.raise_if_any()

    def _validated(self, array: np.ndarray, where: str) -> np.ndarray:
        """Return the array as float32; raise ``DataError`` where it is no usable (clips, dim)."""
        if array.dtype.kind not in "fiu":
            raise DataError([Problem(where, f"expected an array of numbers, got {array.dtype}", self._again)])
        shape = _without_axis_of_one(array.shape)
        if len(shape) != 2 or 0 in shape:
            expected = f"expected features ({self._rows}, dim), got shape {shape}"
            raise DataError([Problem(where, f"no {self._rows}" if len(shape) == 2 else expected, self._again)])
        if shape[-1] != self.dim:
            what = f"features {shape} are {shape[-1]} wide, expected {self.dim} as in {self._model}"
            fix = f"use one kind of features per folder, with axes ({self._rows}, dim) and not (dim, {self._rows})"
            raise DataError([Problem(where, what, fix)])
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is reported below
            values = np.array(array.reshape(shape), dtype=np.float32, order="C")
        if not np.isfinite(values).all():
            rows = np.nonzero(~np.isfinite(values).all(axis=1))[0]
            wrong = (("NaN", np.isnan(values)), ("infinity", np.isinf(values)))
            kinds = " and ".join(name for name, bad in wrong if bad.any())
            one = self._rows[:-1]
            what = f"{kinds} in {len(rows)} of {len(values)} {self._rows}, the first is {one} {rows[0]}"
            raise DataError([Problem(where, what, self._again)])
        return values


def _without_axis_of_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (rows, dim) of (1, rows, dim), as several published files have it; any other shape as it is."""
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


def missing_features(store: FeatureStore, queries: Mapping[str, int], source: str) -> list[Problem]:
    """Return what is wrong where videos have no features; all of them at once where names do not agree at all.

    ``queries`` are the number of queries by video, ``source`` names the annotations in messages.
    """
    missing = [video for video in queries if video not in store]
    if len(missing) > 1 and len(missing) == len(queries):
        places = ", ".join(dict.fromkeys(name for video in missing for name in store.lacking(video)))
        shown = ", ".join(map(repr, store.keys()[:3])) or "none that all of them have"
        what = f"none of the {len(queries)} videos, {', '.join(map(repr, missing[:3]))}, ..., has features in {places}"
        return [Problem(source, f"{what}; these are called {shown}", "correct --features, or rename their files")]
    fix = "add its feature file, correct --features, or remove its queries"
    return [
        Problem(
            f"{source}: video {video}",
            f"{queries[video]} queries, and no features in {', '.join(store.lacking(video))}",
            fix,
        )
        for video in missing
    ]


class MemoryFeatures(_Store):
    """A store over arrays in memory, for tests and demonstrations: ``{video: (clips, dim)}``."""

    def __init__(self, arrays: dict[str, np.ndarray], name: str = "features in memory") -> None:
        if not arrays:
            raise DataError([Problem(name, "no videos", "give at least one array")])
        super().__init__(name, arrays)
        self.dim = int(np.shape(next(iter(arrays.values())))[-1])


class _Folder(_Store):
    """A folder of ``VIDEO.npy``, ``VIDEO.npz`` or ``VIDEO.pt`` files."""

    def __init__(self, path: Path, array: str, rows: Rows) -> None:
        self._array = array
        files: dict[str, Path] = {}
        problems = Problems()
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for name in names:
            video, suffix = os.path.splitext(name)
            if suffix not in _SUFFIXES:
                continue
            if video in files:
                what = f"both {files[video].name} and {name}"
                problems.add(f"{path}: video {video}", what, "keep one of the two files")
            files[video] = path / name
        problems.raise_if_any()
        if not files:
            has = f"it has {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else "it is empty"
            what = f"no {', '.join(_SUFFIXES)} files in this folder; {has}"
            raise DataError([Problem(str(path), what, f"expected {_EXPECTED}")])
        super().__init__(str(path), files, rows)
        self._find_width()

    def _where(self, video_id: str) -> str:
        return str(self._videos[video_id])

    def _open(self, video_id: str) -> np.ndarray:
        # Threads that read headers of .npy files at once now and then meet a race in CPython's parser (gh-106905, in
        # Python 3.11 and 3.12 until 2024), which raises SystemError. The file is fine: it is read again.
        for _ in range(8):
            with contextlib.suppress(SystemError):
                return self._load(self._videos[video_id])
        return self._load(self._videos[video_id])

    def _load(self, file: Path) -> np.ndarray:
        try:
            if file.suffix == ".npy":
                return np.load(file, mmap_mode="r", allow_pickle=False)
            if file.suffix == ".pt":
                return self._chosen(file, _tensors(file))
            with np.load(file, allow_pickle=False) as archive:
                return self._chosen(file, archive)
        except DataError:
            raise
        except FileNotFoundError as error:
            raise DataError([Problem(str(file), "the file has disappeared", "open the folder again")]) from error
        except _UNREADABLE as error:
            if "ickle" in str(error) or "objects" in str(error):
                what = "holds pickled Python objects, which are never loaded, and not an array of numbers"
                fix = "save the array itself: np.save(file, np.asarray(features, dtype=np.float32))"
                raise DataError([Problem(str(file), what, fix)]) from error
            again = "the file may be truncated or damaged: extract or copy it again"
            raise DataError([Problem(str(file), f"cannot be read ({error})", again)]) from error

    def _chosen(self, file: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the array of the right name, or the only one."""
        names = list(arrays)
        if self._array not in names and len(names) != 1:
            what = f"no array `{self._array}`, it has {names}"
            raise DataError([Problem(str(file), what, f"save it alone, or as `{self._array}`")])
        return np.asarray(arrays[self._array if self._array in names else names[0]])


_UNREADABLE = (OSError, ValueError, EOFError, BadZipFile, KeyError, SyntaxError, zlib.error, RuntimeError, PickleError)


def sentence_of(folder: Path, name: str) -> str | None:
    """Return the sentence that ``data extract --queries`` keeps beside its vectors; None where a file has none."""
    file = folder / f"{name}.npz"
    if file.is_file():
        with contextlib.suppress(*_UNREADABLE), np.load(file, allow_pickle=False) as archive:  # the store will say it
            if "sentence" in archive.files and archive["sentence"].dtype.kind == "U":
                return clean_sentence(str(archive["sentence"]))
    return None


def _tensors(file: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file that ``torch.save`` wrote, one or several by name, as arrays."""
    import torch

    content = torch.load(file, map_location="cpu", weights_only=True)
    found = content if isinstance(content, dict) else {"features": content}
    return {str(name): each.detach().float().numpy() for name, each in found.items() if isinstance(each, torch.Tensor)}


class _Hdf5(_Store):
    """One HDF5 file. Opened anew in every process, because handles do not survive a fork."""

    def __init__(self, path: Path, array: str, rows: Rows) -> None:
        self._path = path
        self._handle: Any = None
        self._process = -1
        file = self._file()
        nested = "features" in file and hasattr(file["features"], "keys")
        videos: dict[str, str] = {}
        problems = Problems()
        for name, entry in (file["features"] if nested else file).items():
            place = f"features/{name}" if nested else name
            if not hasattr(entry, "keys"):
                videos[name] = place
                continue
            shapes = {each: _without_axis_of_one(getattr(data, "shape", ())) for each, data in entry.items()}
            two_axes = [each for each, shape in shapes.items() if len(shape) == 2]
            chosen = [array] if array in entry else two_axes
            if len(chosen) == 1:
                videos[name] = f"{place}/{chosen[0]}"
            elif two_axes:
                what = f"group {place} holds {', '.join(entry)}, of which {len(two_axes)} are (rows, dim)"
                repair = f"keep one of them, or name it `{array}`; in Python, open_features(path, array=NAME) chooses"
                problems.add(str(path), what, repair)
        problems.raise_if_any()
        if not videos:
            what = f"no datasets of videos found; at the top it has {list(file)[:5]}"
            raise DataError([Problem(str(path), what, "expected one dataset per video, or VIDEO/features")])
        super().__init__(str(path), videos, rows)
        self._find_width()

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

    def _open(self, video_id: str) -> Any:
        return self._file()[self._videos[video_id]]

    def _read(self, video_id: str) -> np.ndarray:
        try:
            return self._open(video_id)[()]
        except (OSError, KeyError, RuntimeError) as error:
            fix = "the file may be truncated or damaged: copy or extract it again"
            raise DataError([Problem(self._where(video_id), f"cannot be read ({error})", fix)]) from error


class _SideBySide(FeatureStore):
    """One or several stores, concatenated along the width; the other arguments as ``open_features`` takes them."""

    def __init__(
        self, stores: Sequence[FeatureStore], max_clips: int | None, pooling: Pooling, normalize: bool
    ) -> None:
        self._stores, self._max_clips, self._pooling, self._normalize = stores, max_clips, pooling, normalize
        self.dim = sum(store.dim for store in stores)

    @property
    def widths(self) -> list[int]:
        return [store.dim for store in self._stores]

    def lacking(self, video_id: str) -> list[str]:
        return [name for store in self._stores for name in store.lacking(video_id)]

    def __contains__(self, video_id: object) -> bool:
        return all(video_id in store for store in self._stores)

    def keys(self) -> list[str]:
        return sorted(set.intersection(*(set(store.keys()) for store in self._stores)))

    def __getitem__(self, video_id: str) -> np.ndarray:
        parts, problems = [], Problems()
        for store in self._stores:
            with problems.collecting():
                parts.append(unit_length(store[video_id]) if self._normalize else store[video_id])
        problems.raise_if_any()
        counts = [len(part) for part in parts]
        if max(counts) - min(counts) > max(2, max(counts) // 10):
            what = f"the feature sets disagree about the number of clips: {counts}"
            fix = "they must have the same clip length: extract them again"
            raise DataError([Problem(f"video {video_id}", what, fix)])
        one = parts[0] if len(parts) == 1 else np.concatenate([part[: min(counts)] for part in parts], axis=1)
        return one if self._max_clips is None else sample_clips(one, self._max_clips, self._pooling)
