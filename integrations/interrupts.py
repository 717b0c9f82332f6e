"""Orderly interruption: Ctrl-C and SIGTERM end a run between two steps, with its checkpoint written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


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
