"""Files: written whole or not at all, locked, hashed and read line by line."""

import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from hero_plugin.integrations.support.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

OnProgress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all)."""
_MARK = ".writing-"


def check_free(output: Path, overwrite: bool, *inputs: Path) -> None:
    """Raise ``UserError`` where something is that may not be replaced; what is read never may."""
    if output.exists() and (not overwrite or output.resolve() in [path.resolve() for path in inputs]):
        raise UserError(f"{output} exists already: add --overwrite, or name another file (never the input)")


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; the file there becomes ``path`` at the end of the block.

    An error or Ctrl-C inside the block removes the temporary file and leaves whatever was at ``path`` untouched.
    The folder is created if needed.

    ``durable`` flushes to the disk before and after the rename, so that a power cut cannot leave an empty file. Switch
    it off for thousands of small files that can be made again.
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
def atomic_write(path: str | os.PathLike[str], mode: str = "w", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Open a file for writing that appears under ``path`` only once it is complete; see ``atomic_path``.

    The mode is "w" (UTF-8, with Unix line ends) or "wb".
    """
    if mode not in ("w", "wb"):
        raise ValueError(f'mode must be "w" or "wb", got {mode!r}')
    options: dict[str, Any] = {"encoding": "utf-8", "newline": "\n"} if mode == "w" else {}
    with atomic_path(path, durable=durable) as temporary, open(temporary, mode, **options) as stream:
        yield stream


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file, UTF-8, at once or not at all."""
    with atomic_write(path) as stream:
        stream.write(text)


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int = 2, ascii: bool = True) -> None:
    """Write a value as a JSON file, at once or not at all; NaN as ``NaN``, see ``nan_to_null``."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=ascii) + "\n")


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete temporary files that a killed process left in ``folder``."""
    for path in list(Path(folder).glob(f".*{_MARK}????????")):
        path.unlink(missing_ok=True)


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; it is read again once its time or its size has changed."""
    about = path.stat()
    return _checksum(path.resolve(), about.st_ino, about.st_mtime_ns, about.st_size)


@cache
def _checksum(path: Path, *as_it_is: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):  # hashlib.file_digest needs Python 3.11
            found.update(block)
    return found.hexdigest()


def nan_to_null(scores: Any) -> Any:
    """Return the scores with None for every NaN (the score of no query): standard JSON has no NaN."""
    if isinstance(scores, Mapping):
        return {key: nan_to_null(value) for key, value in scores.items()}
    if isinstance(scores, (list, tuple)):
        return [nan_to_null(value) for value in scores]
    return None if isinstance(scores, float) and math.isnan(scores) else scores


# Locks of our own: filelock truncates the file that it locks, and cannot lock a folder without a file beside it.


@contextmanager
def lock_file(path: Path) -> Iterator[bool]:
    """Lock the file ``path`` until the block ends, or the process; yield whether no other process has it."""
    with open(path, "ab") as stream:
        yield try_lock(stream)


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder, which gets no further file; yield True as well where there is none."""
    opened = os.open(folder, os.O_RDONLY) if fcntl is not None and folder.is_dir() else None
    try:
        yield opened is None or try_lock(opened)
    finally:
        if opened is not None:
            os.close(opened)


def try_lock(file: IO[Any] | int) -> bool:
    """Lock an open file for this process, unless another has it. A killed process lets go of it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def iter_lines(path: Path, progress: OnProgress | None = None, every: int = 1000) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line with its end), split at line feeds alone: words of GloVe hold other line ends.

    ``progress`` is called after ``every`` so many lines, and at the end.
    """
    total, done = path.stat().st_size, 0
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            done += len(line)
            if progress is not None and number % every == 0:
                progress(done, total)
            yield number, line
    if progress is not None:
        progress(total, total)
