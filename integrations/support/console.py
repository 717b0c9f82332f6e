"""Output for people: progress bars on a terminal, a line now and then and one per epoch anywhere else, tables."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich import progress
from rich.console import Console
from rich.table import Table

PERIOD = 30.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


class Teller:
    """Tells how far something is, at most once in a ``PERIOD``, and only news."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._at, self._last = say, time.monotonic(), ""

    def __call__(self, text: Callable[[], str]) -> None:
        """Say the text if it is time."""
        if time.monotonic() - self._at >= PERIOD and (said := text()) != self._last:
            self._say(said)
            self._at, self._last = time.monotonic(), said


class Screen:
    """The display of a run, named ``label`` among several. Bars go to the terminal only, lines everywhere."""

    def __init__(self, console: Console | None = None, *, label: str = "", quiet: bool = False) -> None:
        self.console = console or _console()
        self.label, self.quiet = label, quiet
        self._label = f"{label}  " if label else ""
        self.epochs = self.steps = 0
        self._shown: progress.Progress | None = None
        self._bars: progress.Progress | None = None
        self._run = self._part = progress.TaskID(0)
        self._loss = ""
        self._what, self._done, self._total = "", 0, 0
        self._tell = Teller(self.say)

    @contextmanager
    def training(self, epochs: int, steps: int) -> Iterator[None]:
        """Show bars for a training of ``epochs`` epochs of ``steps`` steps."""
        self.epochs, self.steps = epochs, steps
        with self._showing() as bars:
            self._bars = bars
            self._run = bars.add_task(f"[bold]{self.label or 'training'}", total=epochs * steps, note="")
            self._part = bars.add_task("", total=steps, note="")
            try:
                yield
            finally:
                self._bars = None

    @contextmanager
    def working(self, what: str, total: int) -> Iterator[Any]:
        """Show one bar for ``total`` parts of work, below those that are shown; yield ``advance(done, total)``."""
        with self._showing() as bars:
            task = bars.add_task(what, total=total, note="")

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)
                if bars.disable:
                    self._tell(lambda: f"{what}: {done} of {total}")

            try:
                yield advance
            finally:
                bars.remove_task(task)

    @contextmanager
    def _showing(self) -> Iterator[progress.Progress]:
        """Yield the progress bars that are on the screen, or new ones: up to rich 14.0 a console shows but one set."""
        if self._shown is not None:
            yield self._shown
            return
        with self.bars() as self._shown:
            try:
                yield self._shown
            finally:
                self._shown = None

    def bars(self) -> progress.Progress:
        """Return progress bars in this screen's style."""
        return progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TextColumn("[dim]{task.fields[note]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("[dim]left"),
            progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=self.quiet or not self.console.is_terminal,
        )

    def position(self, epoch: int, step: int) -> None:
        """Move the bars to ``step`` of ``epoch`` (both from 0)."""
        if self._bars is not None:
            self._bars.update(self._run, completed=epoch * self.steps + step)
        self._begin(f"epoch {epoch + 1}/{self.epochs}", step, self.steps, self._loss)

    def step(self) -> None:
        """Advance by one training step."""
        if self._bars is not None:
            self._bars.advance(self._run)
        self._advance()

    def loss(self, mean: float) -> None:
        """Show the mean loss beside the bar."""
        self._loss = f"loss {mean:.3f}"
        if self._bars is not None:
            self._bars.update(self._part, note=self._loss)

    def evaluating(self, name: str, total: int) -> None:
        """Show a bar for scoring the set ``name`` in ``total`` batches."""
        self._begin(f"scoring {name}", 0, total)

    def evaluated(self) -> None:
        """Advance by one scored batch."""
        self._advance()

    def _begin(self, what: str, done: int, total: int, note: str = "") -> None:
        """Begin a part of the training, or go on with it."""
        self._what, self._done, self._total = what, done, total
        if self._bars is not None:
            self._bars.reset(self._part, completed=done, total=total, description=what, note=note)

    def _advance(self) -> None:
        self._done += 1
        if self._bars is not None:
            self._bars.advance(self._part)
            if self._bars.disable:
                self._tell(lambda: f"{self._label}{self._what}: {self._done} of {self._total}  {self._loss}".rstrip())

    def epoch_line(self, line: Mapping[str, Any], scores: Iterable[str]) -> None:
        """Print one line per epoch: its loss, then the scores of every set as text, then its seconds."""
        parts = [f"epoch {line['epoch']:>{len(str(self.epochs))}}/{self.epochs}"]
        parts += [f"loss {line['losses']['loss']:.3f}"] if line["losses"] else []
        parts += scores
        parts.append(f"{line['seconds']:.0f} s")
        self.say(self._label + "  ".join(parts))

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def show(self, table: Table) -> None:
        """Print a table, unless quiet."""
        if not self.quiet:
            self.console.print(table)


def _console() -> Console:
    """Return the terminal; where output goes to a file, a console wide enough for tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 150))


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], Any]]:
    """Show how far something is on the error stream; yield ``update(done, total)``."""
    console = Console(stderr=True)
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        task, tell = shown.add_task(what, total=None), Teller(console.print)

        def update(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total)
            if shown.disable and total:
                tell(lambda: f"{what}: {100 * done / total:.0f} %")

        yield update
