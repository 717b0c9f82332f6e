"""The log as TensorBoard events."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def write_events(folder: Path, history: Iterable[Mapping[str, Any]], *, replace: bool = False) -> None:
    """Add epochs of the log to ``folder``.

    ``replace`` writes the folder anew: the log is what a resumed run trusts, and events of epochs that it
    does not hold would show twice.
    """
    from torch.utils.tensorboard import SummaryWriter

    if replace:
        shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for line in history:
            for name, value, step in scalars(line):
                writer.add_scalar(name, value, step)


def scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """(tag, value, training step) of everything an epoch's line holds."""
    step = line["step"]
    for at, loss in line["curve"]:
        yield "train/running_loss", loss, at
    for name, value in line["losses"].items():
        yield f"train/{name}", value, step
    yield "train/lr", line["lr"], step
    for dataset, scores in line["metrics"].items():
        for name, value in scores.items():
            yield f"{dataset}/{name}", value, step
    for name, values in line.get("gauges", {}).items():
        for level, value in enumerate(values):
            yield f"{name}/{level}", value, step
