"""One comparison: its models side by side, counted, then timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hero_plugin import HeroConfig
from hero_plugin.integrations.tools.bench.cases import UPSTREAM, Model, Setting, Sizes
from hero_plugin.integrations.tools.bench.counters import (
    Clock,
    Operations,
    Spread,
    count_kernels,
    interleaved,
    peak_memory,
)
from hero_plugin.integrations.tools.bench.models import Job, build_bare, build_upstream, random_batch, recipe_of
from hero_plugin.integrations.training.device import keep_freed_memory


@dataclass(frozen=True)
class Effort:
    """How to measure."""

    steps: int = 20
    """Timed steps of each model; 0 counts only."""
    warmup: int = 3
    seed: int = 0
    clock: Clock = "wall"
    compile: bool = False
    """Time compiled models; FLOPs, operators and memory are the eager model's."""


@dataclass
class Measurement:
    """One model in one setting."""

    setting: Setting
    model: Model
    sizes: Sizes
    parameters: int
    flops: int
    operators: int
    kernels: int | None
    """Launched on a CUDA device; None elsewhere."""
    memory: int
    """Bytes, the most at once."""
    seconds: list[float] = field(default_factory=list)

    @property
    def time(self) -> Spread | None:
        return Spread.of(self.seconds) if self.seconds else None

    @property
    def throughput(self) -> float | None:
        """Queries a second."""
        return None if self.time is None else self.sizes.batch / self.time.median


def compare(
    setting: Setting,
    models: Sequence[Model],
    sizes: Sizes,
    effort: Effort,
    *,
    hero: HeroConfig | None = None,
    clones: Path | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """Measure models of one setting in one run.

    hero: the choices of HERO that the compared models do not make themselves.
    clones: folder of upstream's clones; needed for upstream's models.
    after_step: called ``work(models, effort)`` times.
    """
    device = torch.device(setting.device)
    keep_freed_memory(device)  # as the training scripts do
    jobs = jobs_of(setting, models, sizes, effort.seed, hero or HeroConfig(), clones, device)
    measured = {}
    for model, job in jobs.items():
        measured[model] = count(setting, model, sizes, job)
        after_step()
    if effort.steps:
        steps = {str(model): job.step(compiled(job) if effort.compile else None) for model, job in jobs.items()}
        times = interleaved(steps, effort.warmup, effort.steps, device, effort.clock, after_step)
        for model, each in measured.items():
            each.seconds = times[str(model)]
    return list(measured.values())


def work(models: Sequence[Model], effort: Effort) -> int:
    """How often ``compare`` reports progress."""
    return len(models) * (1 + (effort.warmup + effort.steps if effort.steps else 0))


def jobs_of(
    setting: Setting,
    models: Sequence[Model],
    sizes: Sizes,
    seed: int,
    hero: HeroConfig,
    clones: Path | None,
    device: torch.device,
) -> Mapping[Model, Job]:
    """Every model with the same base weights and the same batch."""
    recipe, batch = recipe_of(setting.base, sizes), random_batch(setting.base, sizes, seed)
    ours = build_bare(setting.base, sizes, seed)
    theirs = None if clones is None else build_upstream(setting.base, ours, sizes, seed, clones)
    jobs = {}
    for model in models:
        bare = theirs if model.name in UPSTREAM else ours
        if bare is None:
            raise ValueError(f"{model} needs the folder of upstream's clones")
        task = bare.task(model, hero, recipe, sizes)
        jobs[model] = Job.of(task, batch, recipe, setting.mode, setting.dtype, device)
    return jobs


def count(setting: Setting, model: Model, sizes: Sizes, job: Job) -> Measurement:
    """What needs no clock."""
    step = job.step()
    step()  # the optimizer's state comes with the first step
    memory = peak_memory(step, job.held(), job.device)
    with Operations() as operations:
        step()
    return Measurement(
        setting=setting,
        model=model,
        sizes=sizes,
        parameters=sum(parameter.numel() for parameter in job.task.model.parameters()),
        flops=operations.flops,
        operators=operations.total,
        kernels=count_kernels(step, job.device) if job.device.type == "cuda" else None,
        memory=memory,
    )


def compiled(job: Job) -> Any:
    return torch.compile(job.task.model)
