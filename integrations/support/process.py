"""The rank of this process, as ``torchrun`` sets it in the environment."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

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
    def of_this_process(cls) -> Rank:
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

    def told(self, message: str) -> str:
        """Return an error's message, with the process it comes from where there are several.

        Wrong flags or files are wrong in every process and should be reported once. So the others wait a moment:
        ``torchrun`` ends them as soon as the leading one has failed.
        """
        if self.leads:
            return message
        time.sleep(GRACE)
        return f"process {self.index} of {self.size}: {message}"

    @property
    def leads(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.index == 0


# Orderly interruption: Ctrl-C and SIGTERM end a run between two steps, with its checkpoint written.


class Interrupted(Exception):
    """The run was asked to stop and has saved where it was."""


class Interrupts:
    """While open, the first SIGINT or SIGTERM sets ``requested``; the second one acts as it always did.

    >>> with Interrupts() as interrupts:
    ...     for batch in batches:
    ...         step(batch)
    ...         if interrupts.requested:
    ...             save_and_leave()

    Off the main thread Python allows no handlers: there, nothing is caught and ``requested`` stays false.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for which in self.SIGNALS:
                self._before[which] = signal.signal(which, self._request)
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)
        self._before.clear()
