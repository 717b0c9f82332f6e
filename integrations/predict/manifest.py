"""Manifest of a prediction: the facts on which all its shards must agree."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hero_plugin.integrations.checksum import checksum
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_text
from hero_plugin.integrations.predict.journal import at_work, has_windows

NAME = "manifest.json"

PATIENCE = 60.0
"""Seconds in which the leading process is there, too, and has replaced a manifest that nothing came of."""

EXPLAINED = {
    "weights": "the checkpoint has changed",
    "vocabulary": "the run's vocabulary has changed",
    "queries_sha256": "the query file has changed",
    "shards": "another number of shards (ranks, or --shard I/N)",
}


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
    def open(cls, output: Path) -> Manifest:
        """Open the prediction in ``output``.

        Raises:
            UserError: there is none.
        """
        folder, predictions = cls.places(output)
        path = folder / NAME
        if not path.is_file():
            raise UserError(f"{output}: no prediction here ({path} is missing)")
        try:
            return cls(folder, predictions, json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); delete {folder} to start again") from error

    @classmethod
    def agree(cls, output: Path, facts: Mapping[str, Any], *, leads: bool = True) -> Manifest:
        """Start a prediction in ``output``, or continue the one that is there.

        Args:
            output: as given on the command line.
            facts: what this prediction depends on.
            leads: whether this process decides that a prediction with other facts is replaced while none of its windows
                is finished; the other processes wait for that.

        Raises:
            UserError: the prediction there has other facts, which the message lists; or something else is there.
        """
        folder, predictions = cls.places(output)
        path = folder / NAME
        if not path.is_file():
            if predictions.exists():
                raise UserError(f"{predictions}: exists, and {path} does not; choose another --output")
            if folder.exists() and (not folder.is_dir() or _strangers(folder)):
                raise UserError(f"{folder}: exists, and holds no predictions; choose another --output")
            _create(path, json.dumps(facts, indent=2) + "\n")
        requested = json.loads(json.dumps(facts))
        made = cls.open(output)
        if made.changed(requested):
            made = made._replaced(output, requested, leads)
        changed = made.changed(requested)
        if changed:
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
        """Return the names of the facts that differ in ``requested``."""
        return [name for name in {**self.facts, **requested} if self.facts.get(name) != requested.get(name)]

    def begun(self) -> bool:
        """Return whether any window of any shard is finished."""
        return self.predictions.exists() or any(map(has_windows, self._journals()))

    def check_agreed(self, output: Path) -> None:
        """Raise ``UserError`` if another prediction took this one's place before it had a part."""
        if type(self).open(output).facts != self.facts:
            raise UserError(f"{output}: another prediction was begun here at the same time; choose another --output")

    def _replaced(self, output: Path, requested: Mapping[str, Any], leads: bool) -> Manifest:
        """Return the manifest that stands there after there was time to replace this one."""
        if leads:
            if not self.begun() and not any(map(at_work, self._journals())):
                write_text(self.folder / NAME, json.dumps(requested, indent=2) + "\n")
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


def file_digest(path: Path) -> str:
    """Return the first 16 digits of a file's SHA-256."""
    return checksum(path)[:16]


def _strangers(folder: Path) -> bool:
    """Return whether the folder holds anything but what another shard leaves while it starts."""
    return any(not entry.name.startswith(f".{NAME}") and entry.name != NAME for entry in folder.iterdir())


def _create(path: Path, text: str) -> None:
    """Write a file at once as a whole, unless another process has done so first."""
    own = path.with_name(f".{NAME}-{uuid.uuid4().hex[:8]}")
    write_text(own, text)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            write_text(path, text)
    finally:
        own.unlink()
