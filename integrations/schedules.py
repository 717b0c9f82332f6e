"""Learning-rate schedules as functions of the step, so that resuming needs no scheduler state."""

from __future__ import annotations

from typing import Literal

import torch

Schedule = Literal["linear", "step"]


def linear_decay(step: int, total: int, warmup: int = 0) -> float:
    """Return the factor on the learning rate: up from 0 over ``warmup`` steps, then straight down to 0 at ``total``."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def step_decay(step: int, period: int, warmup: int = 0) -> float:
    """Return a factor that rises from 0 over ``warmup`` steps, then drops to a tenth after every ``period`` steps."""
    rise = min(1.0, step / warmup) if warmup else 1.0
    return rise * 0.1 ** (step // period)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
