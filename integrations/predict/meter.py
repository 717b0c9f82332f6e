"""Progress of a shard: a bar on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from hero_plugin.integrations.console import Screen

LINE_SECONDS = 30.0


class ProgressMeter:
    """Count the answered entries of the query file.

    Args:
        screen: where to show them.
        label: what is counted.
        total: entries of this shard.
        done: entries that earlier starts answered.
    """

    def __init__(self, screen: Screen, label: str, total: int, done: int) -> None:
        self.screen, self.label, self.total, self.done = screen, label, total, done
        self._before, self._start = done, time.monotonic()
        self._said = self._start
        self._advance = lambda done, note: None

    @contextmanager
    def showing(self) -> Iterator[ProgressMeter]:
        """Show the bar until the block ends."""
        with self.screen.bars(transient=True) as bars:
            task = bars.add_task(self.label, total=self.total, completed=self.done, note="")
            self._advance = lambda done, note: bars.update(task, completed=done, note=note)
            yield self

    @property
    def rate(self) -> float:
        """Queries per second since this start."""
        return (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)

    def add(self, count: int) -> None:
        """Count more answered entries."""
        self.done += count
        self._advance(self.done, f"{self.rate:.0f}/s")
        if not self.screen.console.is_terminal and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            self.screen.say(self.line())

    def line(self) -> str:
        """Return the progress as one line of text."""
        left = (self.total - self.done) / max(self.rate, 1e-9)
        return f"{self.label}: {self.done} of {self.total} queries, {self.rate:.0f}/s, {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
