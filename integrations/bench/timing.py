"""Steps taken in turns, so that what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

Step = Callable[[], object]
Clock = Literal["wall", "processor"]


def interleaved(
    steps: Mapping[str, Step],
    warmup: int,
    turns: int,
    device: torch.device,
    clock: Clock = "wall",
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each step, one a turn; in each turn every step runs once.

    warmup: turns before the first that counts.
    device: what the steps run on; the clock stops when it is done.
    clock: "processor" counts the time of this process on all its threads, which other programs disturb less.
    """
    now = {"wall": time.perf_counter, "processor": time.process_time}[clock]
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warmup + turns):
        for name, step in steps.items():
            wait(device)
            began = now()
            step()
            wait(device)
            if turn >= warmup:
                seconds[name].append(now() - began)
            after_step()
    return seconds


def wait(device: torch.device) -> None:
    """Until everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(*(float(value) for value in np.percentile(values, (25, 50, 75))))

    @classmethod
    def of_ratio(cls, over: Sequence[float], under: Sequence[float]) -> Spread:
        """Of what was measured in the same turns: a machine that slows down slows both."""
        return cls.of([one / other for one, other in zip(over, under, strict=True)])
