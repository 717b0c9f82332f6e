"""One comparison: its variants side by side, counted, then timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hero_plugin import HeroConfig
from hero_plugin.integrations.tools.bench.cases import UPSTREAM, Setting, Sizes, Variant
from hero_plugin.integrations.tools.bench.counters import (
    Clock,
    Operations,
    Quartiles,
    count_kernels,
    peak_memory,
    time_in_turns,
)
from hero_plugin.integrations.tools.bench.models import Workload, build_bare, build_upstream, random_batch, recipe_of
from hero_plugin.integrations.training.device import keep_freed_memory


@dataclass
class Measurement:
    """One variant in one setting."""

    setting: Setting
    model: Variant
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
    def time(self) -> Quartiles | None:
        """Seconds of a step, where it was timed."""
        return Quartiles.of(self.seconds) if self.seconds else None

    @property
    def throughput(self) -> float | None:
        """Queries per second."""
        return None if self.time is None else self.sizes.batch / self.time.median


def compare(
    setting: Setting,
    variants: Sequence[Variant],
    sizes: Sizes,
    *,
    steps: int = 20,
    warmup: int = 3,
    seed: int = 0,
    clock: Clock = "wall",
    compile: bool = False,
    hero: HeroConfig | None = None,
    clones: Path | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """Measure variants in one setting in one run.

    ``hero`` has the choices that the variants do not make themselves, ``clones`` is the folder of upstream's clones.
    After ``warmup`` turns, ``steps`` of each are timed, of compiled models with ``compile``; FLOPs, operators and
    memory are the eager model's. ``after_step`` is called once per variant, and after each of its steps.
    """
    device = torch.device(setting.device)
    keep_freed_memory(device)  # as the training scripts do
    workloads = workloads_of(setting, variants, sizes, seed, hero or HeroConfig(), clones)
    measured = {}
    for variant, workload in workloads.items():
        measured[str(variant)] = count(setting, variant, sizes, workload)
        after_step()
    if steps:
        timed = {}
        for variant, workload in workloads.items():
            model: Any = torch.compile(workload.task.model) if compile else None
            timed[str(variant)] = workload.step(model)
        for name, seconds in time_in_turns(timed, warmup, steps, device, clock, after_step).items():
            measured[name].seconds = seconds
    return list(measured.values())


def workloads_of(
    setting: Setting, variants: Sequence[Variant], sizes: Sizes, seed: int, hero: HeroConfig, clones: Path | None
) -> dict[Variant, Workload]:
    """Build every variant with the same base weights and the same batch."""
    recipe, batch = recipe_of(setting.base, sizes), random_batch(setting.base, sizes, seed)
    ours = build_bare(setting.base, sizes, seed)
    theirs = None if clones is None else build_upstream(setting.base, ours, sizes, seed, clones)
    workloads = {}
    for variant in variants:
        bare = theirs if variant.name in UPSTREAM else ours
        if bare is None:
            raise ValueError(f"{variant} needs the folder of upstream's clones")
        workloads[variant] = Workload.of(bare.task(variant, hero, recipe), batch, recipe, setting)
    return workloads


def count(setting: Setting, variant: Variant, sizes: Sizes, workload: Workload) -> Measurement:
    """Measure what needs no clock."""
    step, device = workload.step(), workload.device
    step()  # the optimizer's state comes with the first step
    memory = peak_memory(step, workload.held(), device)
    with Operations() as operations:
        step()
    return Measurement(
        setting=setting,
        model=variant,
        sizes=sizes,
        parameters=sum(parameter.numel() for parameter in workload.task.model.parameters()),
        flops=operations.flops,
        operators=operations.total,
        kernels=count_kernels(step, device) if device.type == "cuda" else None,
        memory=memory,
    )
