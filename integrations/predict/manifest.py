"""What all shards of a prediction must agree on, in one file that the first of them writes."""

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
    """The folder of a prediction, and what it is a prediction of."""

    folder: Path
    predictions: Path
    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Short, of all facts."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def places(cls, output: Path) -> tuple[Path, Path]:
        """The folder of parts and the file of predictions of an ``--output``."""
        if output.suffix in (".jsonl", ".json"):
            return output.with_name(output.name + ".parts"), output
        return output, output / "predictions.jsonl"

    @classmethod
    def open(cls, output: Path) -> Manifest:
        """The prediction in ``output``.

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
        """Start a prediction in ``output``, or go on with the one that is there.

        leads: one of the processes decides that a prediction of something else, of which no window was ever done,
            gives way; the others wait for that.

        Raises:
            UserError: the one there is of something else, and of what; or something else is there.
        """
        folder, predictions = cls.places(output)
        path = folder / NAME
        if not path.is_file():
            if predictions.exists():
                raise UserError(f"{predictions}: exists, and {path} does not; choose another --output")
            if folder.exists() and (not folder.is_dir() or _strangers(folder)):
                raise UserError(f"{folder}: exists, and holds no predictions; choose another --output")
            _create(path, json.dumps(facts, indent=2) + "\n")
        asked = json.loads(json.dumps(facts))
        made = cls.open(output)
        if made.changed(asked):
            made = made._replaced(output, asked, leads)
        changed = made.changed(asked)
        if changed:
            told = "".join(
                f"  {name}: was {made.facts.get(name)!r}, now {asked.get(name)!r}"
                + (f" ({EXPLAINED[name]})\n" if name in EXPLAINED else "\n")
                for name in changed
            )
            raise UserError(
                f"{output}: holds the predictions of something else:\n{told}"
                "Put these back to go on with it, start another with another --output, "
                f"or delete {folder} to start again."
                + ("" if leads or made.begun() else " (No window of it is done: shard 0, started first, replaces it.)")
            )
        return made

    def changed(self, asked: Mapping[str, Any]) -> list[str]:
        """Names of the facts that are others in ``asked``."""
        return [name for name in {**self.facts, **asked} if self.facts.get(name) != asked.get(name)]

    def begun(self) -> bool:
        """Whether any window is done, of any shard."""
        return self.predictions.exists() or any(map(has_windows, self._journals()))

    def check_agreed(self, output: Path) -> None:
        """Raise ``UserError`` where another prediction took this one's place before it held a part."""
        if type(self).open(output).facts != self.facts:
            raise UserError(f"{output}: another prediction was begun here at the same time; choose another --output")

    def _replaced(self, output: Path, asked: Mapping[str, Any], leads: bool) -> Manifest:
        """What stands in the place of this manifest once there was time to replace it; itself where it must stay."""
        if leads:
            if not self.begun() and not any(map(at_work, self._journals())):
                write_text(self.folder / NAME, json.dumps(asked, indent=2) + "\n")
            return type(self).open(output)
        deadline = time.monotonic() + PATIENCE
        while True:
            begun = self.begun()  # looked at first: whoever is through with a window replaced the manifest before
            made = type(self).open(output)
            if begun or not made.changed(asked) or time.monotonic() > deadline:
                return made
            time.sleep(0.1)

    def _journals(self) -> list[Path]:
        return list(self.folder.glob("part-*.journal"))


def file_digest(path: Path) -> str:
    """16 digits of a file's checksum."""
    return checksum(path)[:16]


def _strangers(folder: Path) -> bool:
    """Whether there is anything but what another shard leaves while it starts."""
    return any(not entry.name.startswith(f".{NAME}") and entry.name != NAME for entry in folder.iterdir())


def _create(path: Path, text: str) -> None:
    """Write a file whole, unless another process comes first."""
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
