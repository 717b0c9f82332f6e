"""Checkpoints of runs: written whole or not at all, and loaded without unpickling anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import atomic_write

VERSION = 1


class CheckpointError(UserError):
    """A checkpoint that cannot be read, and what to do about it."""


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings and containers of them.

    The bytes reach the disk under another name first, and the name is then swapped: whenever the process or
    the machine dies, ``path`` holds the old checkpoint or the new one.
    """
    with atomic_write(path, "wb") as file:
        torch.save({"version": VERSION, **state}, file)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote. Only plain data is loaded (``weights_only=True``)."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; is this the folder of a run that has trained?")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error}); train the run again") from error
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: checkpoint version {state.get('version')}, this hero-plugin reads version {VERSION}; "
            "use the version of hero-plugin that the run's config.json names"
        )
    return state
