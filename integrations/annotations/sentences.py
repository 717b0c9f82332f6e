"""Reading of queries for their words alone, whatever is wrong with their moments or their videos' lengths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hero_plugin.integrations.annotations import READERS
from hero_plugin.integrations.annotations.checks import OnProgress, RecordChecks
from hero_plugin.integrations.annotations.detect import detect_format
from hero_plugin.integrations.records import Record

__all__ = ["read_sentences"]

_SECOND = 1.0


class _WordsOnly(RecordChecks):
    """Checks of the sentence alone: three queries of Charades-CD test-ood begin after their video and count."""

    def duration(self, where: str, raw: Any) -> float | None:
        return _SECOND

    def moment(self, where: str, raw: Any, duration: float) -> tuple[float, float] | None:
        return 0.0, _SECOND


class _AnyVideo(Mapping[str, float]):
    """A stand-in for the videos' lengths, which Charades-STA text needs and words do not."""

    def __getitem__(self, video: str) -> float:
        return _SECOND

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 1


def read_sentences(path: str | os.PathLike[str], progress: OnProgress | None = None) -> list[Record]:
    """Read the queries of a file in any format, in its order. Moments and durations of these records mean nothing.

    Raises:
        FileNotFoundError: The file is missing.
        DataError: Lines are malformed, or queries empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file at {path}")
    checks = _WordsOnly(path)
    READERS[detect_format(path)](path, checks, _AnyVideo(), progress)
    return checks.finish()
