"""Timeline features on disk: the same folder of ``VIDEO.npy`` that real features come in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from hero_plugin.integrations.support.errors import DataError, Problem
from hero_plugin.integrations.support.files import atomic_write, remove_leftovers, write_json
from hero_plugin.integrations.tools.timelines.render import (
    DEFAULT,
    SAME_VIDEOS,
    Prototypes,
    Timeline,
    TimelineConfig,
    render_video,
)

MANIFEST = "manifest.json"
_LAYOUT = 1  # of the rendering: raised whenever the same settings would give other numbers


class Rendered(NamedTuple):
    """Videos rendered, videos that were there already, and the clips of all of them."""

    written: int
    skipped: int
    clips: int


def render_folder(
    output: str | os.PathLike[str],
    timelines: Mapping[str, Timeline],
    prototypes: Prototypes,
    config: TimelineConfig = DEFAULT,
    *,
    seed: int = 0,
    videos: Iterable[str] | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    resume: bool = False,
    what: str = "simulated clip features rendered from human action timelines",
    sources: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rendered:
    """Write ``VIDEO.npy`` (clips, dim) of some or all videos, and ``manifest.json``, into the folder ``output``.

    It may be stopped at any moment and never leaves a partial file; ``resume=True`` then goes on with what is
    missing, provided that the settings are the same. ``what`` and ``sources`` are noted in the manifest, and
    ``progress`` is called as progress(videos done, videos in all).

    Raises:
        DataError: The folder holds something else, a video has no timeline, or its name is not that of a file.
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f'dtype must be "float16" or "float32", got {dtype!r}')
    output = Path(output)
    names = sorted(timelines if videos is None else set(videos))
    unknown = [name for name in names if name not in timelines]
    if unknown:
        raise DataError(Problem(f"video {name}", "has no timeline", SAME_VIDEOS) for name in unknown)
    # A name with a folder in it would be written outside the output.
    outside = [name for name in names if Path(name).name != name or "\\" in name or "\0" in name]
    if outside:
        fix = "rename it in the annotations and the timelines"
        raise DataError(Problem(f"video {name!r}", "is not the name of a file", fix) for name in outside)
    settings = {
        "what": what,
        "layout": _LAYOUT,
        "seed": seed,
        "dtype": dtype,
        "config": asdict(config),
        "prototypes": prototypes.checksum(),
    }
    _check_folder(output, settings, resume)
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    notes = {"videos": len(names), "numpy": np.__version__, **({"sources": dict(sources)} if sources else {})}
    write_json(output / MANIFEST, {**settings, **notes, "complete": False})
    written = skipped = clips = 0
    for done, name in enumerate(names, 1):
        file, shape = output / f"{name}.npy", (config.clips(timelines[name].duration), config.dim)
        if resume and _is_complete(file, shape, dtype):
            skipped += 1
        else:
            array = render_video(timelines[name], prototypes, config, seed).astype(dtype)
            with atomic_write(file, "wb", durable=False) as stream:
                np.save(stream, array)
            written += 1
        clips += shape[0]
        if progress is not None:
            progress(done, len(names))
    write_json(output / MANIFEST, {**settings, **notes, "clips": clips, "complete": True})
    return Rendered(written, skipped, clips)


def _check_folder(output: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Raise ``DataError`` unless the folder is new or holds features of the same settings: nothing is overwritten."""
    manifest, another = output / MANIFEST, "name another folder"
    if output.exists() and not output.is_dir():
        raise DataError([Problem(str(output), "is a file", "name a folder")])
    if not manifest.exists():
        if any(output.glob("*.np[yz]")):
            raise DataError([Problem(str(output), "holds features that were not rendered here", another)])
        return
    if not resume:
        fix = f"add --resume to go on with it, or {another}"
        raise DataError([Problem(str(output), "holds timeline features already", fix)])
    try:
        before = json.loads(manifest.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError([Problem(str(manifest), f"not JSON ({error.msg})", another)]) from error
    if not isinstance(before, dict):
        raise DataError([Problem(str(manifest), "not the manifest of timeline features", another)])
    different = [key for key in settings if key != "config" and before.get(key) != settings[key]]
    config_before = before.get("config") or {}
    different += [key for key, value in settings["config"].items() if config_before.get(key) != value]
    if different:
        what = f"was rendered with other settings: {', '.join(different)}"
        raise DataError([Problem(str(output), what, f"{another}, or repeat the settings in its manifest.json")])


def _is_complete(file: Path, shape: tuple[int, int], dtype: str) -> bool:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.dtype(dtype)
