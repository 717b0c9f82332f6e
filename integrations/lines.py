"""Lines of files that may be large, as bytes, with their numbers and how far the reading is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["OnProgress", "iter_lines"]

OnProgress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all)."""


def iter_lines(path: Path, progress: OnProgress | None = None, every: int = 1000) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its end), split at "\\n" alone: some words of GloVe hold other line ends of Python's.

    every: lines between two calls of `progress`, which is called at the end too.
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
