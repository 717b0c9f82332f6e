"""Store of a prediction: its shards, a part and a journal of each, and the manifest on which all agree.

``part-I-of-N.jsonl`` holds one line per answered query. ``part-I-of-N.journal`` holds one line per window, written
once the window's answers are on the disk: where they end, their checksum, what was left out. Whatever follows the
last window on which both files agree was torn by a kill; it is cut off, and that window is answered again.

Kept by hand: an SQLite file per shard needs as much code, a check of the whole file at each start, and answers a
whole shard again where this answers what is damaged.
"""

import hashlib
import json
import os
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hero_plugin.integrations.support import Rank, UserError, write_json
from hero_plugin.integrations.support.files import lock_file, try_lock

MANIFEST = "manifest.json"
PATIENCE = 60.0
"""Seconds in which the leading process is there, too, and has replaced a manifest that nothing came of."""
EXPLAINED = {
    "weights": "the checkpoint has changed",
    "vocabulary": "the run's vocabulary has changed",
    "queries_sha256": "the query file has changed",
    "made_by": "the features have been made anew",
    "shards": "another number of shards (ranks, or --shard I/N)",
}


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of the queries, numbered from 0.

    A shard is a run of whole windows, and windows do not depend on the number of shards: neither do batches, nor the
    bits of the answers.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str | None, rank: Rank) -> "Shard":
        """Return the shard that ``--shard`` names, else the one of this process's rank.

        Raises ``UserError`` where both are given, or it is not I/N.
        """
        if text is None:
            return cls(rank.index, rank.size)
        if rank.size > 1:
            raise UserError(f"--shard {text} and torchrun's {rank.size} processes: give one of the two")
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise UserError(f"--shard must be I/N with I from 0 to N-1, such as 0/4, got {text!r}")
        return cls(int(index), int(count))

    def windows(self, total: int) -> range:
        """Return the numbers of its windows, of ``total``."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)

    def part(self, folder: Path) -> Path:
        """Return the file of its answers in a folder; the journal lies beside it."""
        return folder / f"part-{self.index:05}-of-{self.count:05}.jsonl"

    def __str__(self) -> str:
        return f"shard {self.index}/{self.count}"


def journal_of(part: Path) -> Path:
    """Return the journal of a part."""
    return part.with_suffix(".journal")


def read_journal(part: Path, manifest: str, first: int) -> list[dict[str, Any]]:
    """Return the journal's entry of each finished window; empty if there is no journal.

    They stop before the first that is torn, out of order, or of answers that are no longer in the part. The journal
    must belong to the ``manifest`` of this digest; ``first`` is the number of the shard's first window.
    """
    size = part.stat().st_size if part.is_file() else 0
    found: list[dict[str, Any]] = []
    for number, line in enumerate(_whole_lines(journal_of(part)), first - 1):
        try:
            entry = json.loads(line)
        except ValueError:  # broken JSON, or bytes that are no text
            break
        name, value = ("window", number) if found else ("manifest", manifest)
        if not isinstance(entry, dict) or entry.get(name) != value or entry.get("end", 0) > size:
            break
        found.append(entry)
    return found[1:]


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


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


class Part:
    """The two files of a shard, open for adding windows; one process at a time.

    Attributes:
        entries: the journal's entry of each finished window.

    Raises:
        UserError: another process has them open.
    """

    def __init__(self, part: Path, manifest: str, first: int, sync_seconds: float = 5.0) -> None:
        self.sync_seconds = sync_seconds
        self._journal = open(journal_of(part), "ab")  # noqa: SIM115
        if not try_lock(self._journal):
            self._journal.close()
            raise UserError(f"{part}: another process is at work on this shard")
        known = read_journal(part, manifest, first)
        self.entries = known[: _intact(part, known)]
        self._end = self.entries[-1]["end"] if self.entries else 0
        self._part = open(part, "ab")  # noqa: SIM115
        self._part.truncate(self._end)
        kept = _whole_lines(journal_of(part))[: 1 + len(self.entries)] if self.entries else []
        self._journal.truncate(sum(len(line) + 1 for line in kept))
        if not kept:
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

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


def _flush(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


@dataclass(frozen=True)
class Manifest:
    """A prediction: its folder, its file of predictions, and the facts that its answers depend on."""

    folder: Path
    predictions: Path
    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Short digest of all facts."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def places(cls, output: Path) -> tuple[Path, Path]:
        """Return the folder of parts and the file of predictions of an ``--output``."""
        if output.suffix in (".jsonl", ".json"):
            return output.with_name(output.name + ".parts"), output
        return output, output / "predictions.jsonl"

    @classmethod
    def open(cls, output: Path) -> "Manifest":
        """Open the prediction in ``output``; raise ``UserError`` where there is none."""
        folder, predictions = cls.places(output)
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{output}: no prediction here ({path} is missing)")
        try:
            return cls(folder, predictions, json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); delete {folder} to start again") from error

    @classmethod
    def agree(cls, output: Path, facts: Mapping[str, Any], *, leads: bool = True) -> "Manifest":
        """Start a prediction in ``output``, or continue the one that is there.

        The process that leads decides that a prediction with other facts is replaced while none of its windows is
        finished; the others wait for that. Raises ``UserError`` where the prediction there has other facts, which the
        message lists, or something else is there.
        """
        folder, predictions = cls.places(output)
        path, foreign = folder / MANIFEST, f"{folder}: exists, and holds no predictions; choose another --output"
        started = (MANIFEST, f".{MANIFEST}", f"..{MANIFEST}")  # what another shard leaves while it starts
        if not path.is_file():
            if predictions.exists():
                raise UserError(f"{predictions}: exists, and {path} does not; choose another --output")
            if folder.exists() and not _holds_only(folder, *started):
                raise UserError(foreign)
            _create(path, facts)
        requested = json.loads(json.dumps(facts))
        made = cls.open(output)
        if made.changed(requested):
            if not made.begun() and not _holds_only(folder, *started, "part-"):
                raise UserError(foreign)  # features, say, which have a file of the manifest's name, too
            made = made._replaced(output, requested, leads)
        if changed := made.changed(requested):
            message = "".join(
                f"  {name}: was {made.facts.get(name)!r}, now {requested.get(name)!r}"
                + (f" ({EXPLAINED[name]})\n" if name in EXPLAINED else "\n")
                for name in changed
            )
            raise UserError(
                f"{output}: holds predictions that were made from other inputs or flags:\n{message}"
                "Restore these to continue it, choose another --output to start a new one, "
                f"or delete {folder} to start again."
                + ("" if leads or made.begun() else " (No window of it is done: shard 0, started first, replaces it.)")
            )
        return made

    def changed(self, requested: Mapping[str, Any]) -> list[str]:
        """Return the names of the facts that differ in ``requested``; earlier versions did not note ``made_by``."""
        known = {"made_by": requested.get("made_by"), **self.facts}
        return [name for name in {**known, **requested} if known.get(name) != requested.get(name)]

    def begun(self) -> bool:
        """Return whether any window of any shard is finished."""
        return self.predictions.exists() or any(len(_whole_lines(journal)) > 1 for journal in self._journals())

    def check_agreed(self, output: Path) -> None:
        """Raise ``UserError`` if another prediction took this one's place before it had a part."""
        if type(self).open(output).facts != self.facts:
            raise UserError(f"{output}: another prediction was begun here at the same time; choose another --output")

    def _replaced(self, output: Path, requested: Mapping[str, Any], leads: bool) -> "Manifest":
        """Return the manifest that stands there after there was time to replace this one."""
        if leads:
            if not self.begun() and not any(map(_at_work, self._journals())):
                write_json(self.folder / MANIFEST, requested)
            return type(self).open(output)
        deadline = time.monotonic() + PATIENCE
        while True:
            begun = self.begun()  # looked at first: whoever is through with a window replaced the manifest before
            made = type(self).open(output)
            if begun or not made.changed(requested) or time.monotonic() > deadline:
                return made
            time.sleep(0.1)

    def _journals(self) -> list[Path]:
        return list(self.folder.glob("part-*.journal"))


def _holds_only(folder: Path, *starts: str) -> bool:
    """Return whether all files in a folder have names that start so."""
    return folder.is_dir() and all(each.name.startswith(starts) for each in folder.iterdir())


def _at_work(journal: Path) -> bool:
    """Return whether a process has a shard's files open."""
    with lock_file(journal) as free:
        return not free


def _create(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a manifest at once as a whole, unless another process has done so first."""
    own = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    write_json(own, facts)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            write_json(path, facts)
    finally:
        own.unlink()
