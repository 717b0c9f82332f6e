"""The log as TensorBoard events."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


class Events:
    """The writer of a run's epochs for TensorBoard, into one file for as long as the process lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def restart(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Write the folder anew from the log.

        A resumed run trusts the log; events of epochs that the log does not hold would show twice.
        """
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        for line in history:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Add an epoch."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder))
        for name, value, step in scalars(line):
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Yield (tag, value, training step) of everything in an epoch's line."""
    step = line["step"]
    for at, loss in line["curve"]:
        yield "train/running_loss", loss, at
    for name, value in line["losses"].items():
        yield f"train/{name}", value, step
    yield "train/lr", line["lr"], step
    for dataset, scores in line["metrics"].items():
        for name, value in scores.items():
            yield f"{dataset}/{name}", value, step
    for name, values in line["gauges"].items():
        for level, value in enumerate(values):
            yield f"{name}/{level}", value, step
