"""A run's folder, for one training at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hero_plugin.integrations.locks import only_one_in
from hero_plugin.integrations.run_folder import RunFolder, RunFolderError


def claimed(folder: Path, settings: Mapping[str, Any], held: ExitStack, *, resume: bool, overwrite: bool) -> RunFolder:
    """The run's folder, new or to be continued, for this process alone until ``held`` is closed.

    Raises:
        RunFolderError: another process trains in it, or what ``RunFolder.create`` says.
    """
    with ExitStack() as before:  # the folder that is there may be deleted, and then is not the one that was locked
        _alone_in(folder, before)
        run = RunFolder.create(folder, settings, resume=resume, overwrite=overwrite)
    _alone_in(run.path, held)
    return run


def _alone_in(folder: Path, held: ExitStack) -> None:
    if not held.enter_context(only_one_in(folder)):
        raise RunFolderError(f"{folder}: another training is at work in it; wait for it, or name another folder")
