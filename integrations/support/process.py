"""This process: its rank under ``torchrun``, its orderly interruption and end, the versions of its libraries."""

import os
import platform
import signal
import sys
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from types import FrameType
from typing import Any, NoReturn

import hero_plugin
from hero_plugin.integrations.support.errors import UserError

GRACE = 10.0
"""Seconds in which a process that has failed is gone and ``torchrun`` has seen it, on a busy machine too."""


@dataclass(frozen=True)
class Rank:
    """One process of a group; ``Rank()`` is a process alone.

    Attributes:
        index: 0 to size - 1, over all machines.
        size: Number of processes.
        local: Number on this machine, from 0: the number of its GPU.
    """

    index: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def of_this_process(cls) -> "Rank":
        """Return the rank that ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK`` give; alone where they are not set.

        Raises:
            UserError: Their values are impossible.
        """
        said = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        try:
            rank = cls(*(int(value or default) for value, default in zip(said.values(), (0, 1, 0), strict=True)))
        except ValueError:
            rank = cls(-1)
        if not 0 <= rank.index < rank.size:
            shown = ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)
            raise UserError(f"{shown} is not a process of any group; let torchrun set these, or unset them")
        return rank

    def message(self, text: str) -> str:
        """Return an error's message, with the process it comes from where there are several.

        Wrong flags or files are wrong in every process and should be reported once. So the others wait a moment:
        ``torchrun`` ends them as soon as the leading one has failed.
        """
        if self.leads:
            return text
        time.sleep(GRACE)
        return f"process {self.index} of {self.size}: {text}"

    @property
    def leads(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.index == 0


def end_at_once(status: int) -> NoReturn:
    """End this process now: no finalizers, nothing joined, streams flushed.

    For a process whose group is broken. Threads of gloo and NCCL still hold tensors of a failed exchange; freeing
    them while Python shuts down aborts the process (pytorch/pytorch#179291) or waits for the peer.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Interrupted(Exception):
    """The run was asked to stop and has saved where it was."""


class Interrupts:
    """While open, the first SIGINT or SIGTERM sets ``requested``; the second one acts as it always did.

    So a run ends between two steps, with its checkpoint written. Off the main thread Python allows no handlers:
    there, nothing is caught and ``requested`` stays false.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for which in self.SIGNALS:
                self._before[which] = signal.signal(which, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)
        self._before.clear()


def versions() -> dict[str, str]:
    """Return the versions of hero-plugin and of the libraries that a run depends on."""
    found = {"hero_plugin": hero_plugin.__version__}
    for name in ("torch", "numpy"):  # asked of what is installed: loading torch takes seconds
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return {**found, "python": platform.python_version()}


def declared_bases() -> list[metadata.EntryPoint]:
    """Return the bases that other packages declare, by name; declared is not loaded."""
    return sorted(metadata.entry_points(group="hero_plugin.bases"), key=lambda entry: entry.name)
