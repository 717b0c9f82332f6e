"""Atomic file writes: a file is the old one, the new one or absent, never half of one."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_path", "atomic_write", "remove_leftovers", "write_json", "write_text"]

_MARK = ".writing-"


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; the file there becomes ``path`` at the end of the block.

    An error or Ctrl-C inside the block removes the temporary file and leaves whatever was at ``path`` untouched.
    The folder is created if needed.

    Args:
        path: The file to write.
        durable: Flush to the disk before and after the rename, so that a power cut cannot leave an empty file.
            Switch it off for thousands of small files that can be made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_MARK}{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        if durable:
            _flush(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too must leave nothing behind
        temporary.unlink(missing_ok=True)
        raise
    if durable and os.name == "posix":
        _flush(path.parent, os.O_RDONLY)  # the rename itself lives in the folder


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], mode: str = "w", *, durable: bool = True, **options: Any
) -> Iterator[IO[Any]]:
    """Open a file for writing that appears under ``path`` only once it is complete; see ``atomic_path``.

    Args:
        path: The file to write.
        mode: "w" (UTF-8, "\\n" line ends unless ``options`` of ``open`` say otherwise) or "wb".
        durable: As in ``atomic_path``.
        **options: Passed to ``open``.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f'mode must be "w" or "wb", got {mode!r}')
    if mode == "w":
        options = {"encoding": "utf-8", "newline": "\n", **options}
    with atomic_path(path, durable=durable) as temporary, open(temporary, mode, **options) as stream:
        yield stream


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file, UTF-8, at once or not at all."""
    with atomic_write(path) as stream:
        stream.write(text)


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int = 2, ascii: bool = True) -> None:
    """Write a value as an indented JSON file, at once or not at all.

    Args:
        path: The file.
        value: Anything ``json`` can write. It writes NaN as ``NaN``; see ``nan_to_null``.
        indent: Spaces per level.
        ascii: Escape every other character.
    """
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=ascii) + "\n")


def remove_leftovers(folder: str | os.PathLike[str]) -> int:
    """Delete temporary files that a killed process left in ``folder``; return how many there were."""
    count = 0
    for path in Path(folder).glob(f".*{_MARK}????????"):
        path.unlink(missing_ok=True)
        count += 1
    return count


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
