"""Iteration over the (line number, bytes) of a large file, with a progress callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["OnProgress", "iter_lines"]

OnProgress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all)."""


def iter_lines(path: Path, progress: OnProgress | None = None, every: int = 1000) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line with its end), split at "\\n" alone: words of GloVe hold other line ends.

    Args:
        path: The file.
        progress: Called as progress(bytes read, bytes in all), at the end too.
        every: Lines between two calls of ``progress``.
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
