"""Part file of one shard, and the journal of its finished windows.

``part-I-of-N.jsonl`` holds one line per answered query. ``part-I-of-N.journal`` holds one line per window, written once
the window's answers are on the disk: where they end, their checksum, what was left out. Whatever follows the last
window on which both files agree was torn by a kill; it is cut off, and that window is answered again.

Kept by hand: an SQLite file per shard needs as much code, a check of the whole file at each start, and answers a whole
shard again where this answers what is damaged.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.locks import only_one, try_lock
from hero_plugin.integrations.predict.shards import Shard


@dataclass(frozen=True)
class PartPaths:
    """Paths of the two files of a shard."""

    part: Path
    journal: Path

    @classmethod
    def of(cls, folder: Path, shard: Shard) -> PartPaths:
        """Return the paths of a shard in a folder."""
        name = f"part-{shard.index:05}-of-{shard.count:05}"
        return cls(folder / f"{name}.jsonl", folder / f"{name}.journal")


def read_journal(paths: PartPaths, manifest: str, first: int) -> list[dict[str, Any]]:
    """Return the journal's entry of each finished window; empty if there is no journal.

    Args:
        paths: the shard's files.
        manifest: digest of the manifest that the journal must belong to.
        first: number of the shard's first window.
    """
    return [entry for entry, _ in _good(paths, manifest, first)[1:]]


def _good(paths: PartPaths, manifest: str, first: int) -> list[tuple[dict[str, Any], int]]:
    """Return the journal's first line and its entries, each with where it ends in the journal.

    They stop before the first that is torn, out of order, or of answers that are no longer in the part.
    """
    size = paths.part.stat().st_size if paths.part.is_file() else 0
    found: list[tuple[dict[str, Any], int]] = []
    end = 0
    for line in _whole_lines(paths.journal):
        try:
            entry = json.loads(line)
        except ValueError:  # broken JSON, or bytes that are no text
            break
        expected = {"manifest": manifest} if not found else {"window": first + len(found) - 1}
        if not isinstance(entry, dict) or any(entry.get(name) != value for name, value in expected.items()):
            break
        if entry.get("end", 0) > size:
            break
        end += len(line)
        found.append((entry, end))
    return found


def _intact(part: Path, entries: Sequence[dict[str, Any]]) -> int:
    """Return how many windows, from the first on, match their checksums."""
    if entries:
        start = 0
        with open(part, "rb") as stream:
            for number, entry in enumerate(entries):
                if zlib.crc32(stream.read(entry["end"] - start)) != entry["crc"]:
                    return number
                start = entry["end"]
    return len(entries)


def _whole_lines(path: Path) -> Iterator[bytes]:
    if path.is_file():
        with open(path, "rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                yield line


def has_windows(journal: Path) -> bool:
    """Return whether a journal, of any manifest, names a finished window."""
    return any(number for number, _ in enumerate(_whole_lines(journal)))


def at_work(journal: Path) -> bool:
    """Return whether a process has a shard's files open."""
    with only_one(journal) as free:
        return not free


class Part:
    """The two files of a shard, open for adding windows; one process at a time.

    Attributes:
        entries: the journal's entry of each finished window.

    Raises:
        UserError: another process has them open.
    """

    def __init__(self, paths: PartPaths, manifest: str, first: int, sync_seconds: float = 5.0) -> None:
        self.paths, self.sync_seconds = paths, sync_seconds
        self._journal = open(paths.journal, "ab")  # noqa: SIM115
        if not try_lock(self._journal):
            self._journal.close()
            raise UserError(f"{paths.part}: another process is at work on this shard")
        known = _good(paths, manifest, first)
        known = known[: 1 + _intact(paths.part, [entry for entry, _ in known[1:]])]
        self.entries = [entry for entry, _ in known[1:]]
        self._end = self.entries[-1]["end"] if self.entries else 0
        self._part = open(paths.part, "ab")  # noqa: SIM115
        self._journal.truncate(known[-1][1] if known else 0)
        self._part.truncate(self._end)
        if not known:
            self._journal.write(_line({"manifest": manifest}))
        self._waiting: list[dict[str, Any]] = []
        self._synced = time.monotonic()
        self._writing = 0.0
        _flush(self._part)
        _flush(self._journal)

    def add(self, window: int, lines: Sequence[str], **about: Any) -> None:
        """Add the answers of the next window, and the facts that the journal keeps of it."""
        start = time.perf_counter()
        data = "".join(line + "\n" for line in lines).encode()
        self._part.write(data)
        self._end += len(data)
        entry = {"window": window, "end": self._end, "answered": len(lines), "crc": zlib.crc32(data), **about}
        entry["writing"] = self._writing  # that of the window before: this one's is not over
        self._waiting.append(entry)
        self.entries.append(entry)
        if time.monotonic() - self._synced >= self.sync_seconds:
            self.sync()
        self._writing = time.perf_counter() - start

    def sync(self) -> None:
        """Flush everything added to the disk."""
        _flush(self._part)
        self._journal.write(b"".join(map(_line, self._waiting)))
        _flush(self._journal)
        self._waiting.clear()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync, and let another process have the files."""
        self.sync()
        self._part.close()
        self._journal.close()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


def _flush(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())
