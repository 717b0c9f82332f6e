"""One process at a time, by locks that a killed process lets go of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """Whether this process is the one that holds the file ``path``; it is held until the block ends, or the process."""
    with open(path, "ab") as stream:
        yield try_lock(stream)


@contextmanager
def only_one_in(folder: Path) -> Iterator[bool]:
    """The same for a folder, which gets no further file; of one that does not exist nobody is the holder."""
    if fcntl is None or not folder.is_dir():
        yield True
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(opened)
    finally:
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
