"""``hero-plugin bench``: measure, print, and write where asked."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from hero_plugin import HeroConfig
from hero_plugin.integrations.bench.cases import (
    BASES,
    OURS,
    UPSTREAM,
    BaseName,
    Format,
    Mode,
    Model,
    ModelName,
    Setting,
    models_of,
)
from hero_plugin.integrations.bench.measure import Effort, Measurement, compare, work
from hero_plugin.integrations.bench.sizes import Sizes, sizes_of
from hero_plugin.integrations.bench.tables import (
    comparison,
    markdown,
    rich_table,
    settings_of,
    verdicts,
    write_section,
)
from hero_plugin.integrations.bench.targets import LEVELS, Result, Target, judge, models_for
from hero_plugin.integrations.bench.timing import Clock
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_text
from hero_plugin.integrations.precision import choose_device
from hero_plugin.integrations.run_folder import versions

Device = Literal["auto", "cpu", "cuda"]


@dataclass
class BenchConfig:
    """Measure what HERO costs: parameters, FLOPs, step time, throughput, peak memory, beside the plain base and beside
    a literal implementation of the paper, in turns on the same random inputs."""

    bases: tuple[BaseName, ...] = BASES
    models: tuple[ModelName, ...] = ()
    """plain: the base. hero: HERO around it. pair, checkpoint: with relevance="pair", with checkpoint=True.
    literal: the paper in plain loops. upstream, upstream-hero: the authors' own base, with --upstream. All there are
    unless given."""
    levels: tuple[int, ...] = (4,)
    """Of HERO, one or several, such as 1 2 4 8."""
    mode: tuple[Mode, ...] = ("train", "inference")
    device: tuple[Device, ...] = ("auto",)
    """auto: CUDA where there is one, else the CPU; with --targets, both."""
    dtype: tuple[Format, ...] = ("fp32",)
    """bf16 is autocast in the forward, as --amp in training."""
    upstream: Path | None = None
    """The folder that holds clones of the bases' repositories: EMB, moment_detr, QD-DETR, TR-DETR."""
    targets: bool = False
    """Measure what the speed targets need, and nothing else, and say which are met."""

    batch: int | None = None
    """B; the published size unless given, as the next three."""
    clips: int | None = None
    """T"""
    words: int | None = None
    """L"""
    dim: int | None = None
    """D"""
    hero: HeroConfig = field(default_factory=HeroConfig)
    """Other choices of HERO; levels, relevance and checkpoint are the compared models'."""

    steps: int = 20
    """Timed steps of each model, taken in turns; 0 counts FLOPs, operators and memory, and times nothing."""
    warmup: int = 3
    """Turns before the first that counts."""
    clock: Clock = "wall"
    """processor: this process's time on all its threads, which other programs disturb less; on the CPU only."""
    compile: bool = False
    """Time models under torch.compile; the other figures are the eager ones'."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    seed: int = 0

    json: Path | None = None
    """Write every number here."""
    figure: Path | None = None
    """Draw step times and memory as a PNG."""
    markdown: Path | None = None
    """Write the tables into this page, between its comments <!-- bench cpu --> and <!-- end of bench cpu -->, or cuda,
    or targets."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("warmup", 0), ("threads", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        for count in self.levels:
            if count < 1:
                raise UserError(f"--levels must be at least 1, got {count}")
        if self.upstream is None and any(name in UPSTREAM for name in self.models):
            raise UserError("--models upstream needs --upstream: the folder that holds the clones")
        for path in (self.json, self.figure, self.markdown):
            if path is not None and not path.parent.is_dir():
                raise UserError(f"no folder {path.parent} to write {path.name} into; create it first")

    def sizes(self, base: str) -> Sizes:
        return sizes_of(base, batch=self.batch, clips=self.clips, words=self.words, dim=self.dim)

    def devices(self) -> tuple[str, ...]:
        if self.device == ("auto",) and self.targets:
            return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        return tuple(dict.fromkeys(choose_device(name).type for name in self.device))

    def effort(self) -> Effort:
        return Effort(self.steps, self.warmup, self.seed, self.clock, self.compile)

    def plan(self) -> list[tuple[Setting, list[Model]]]:
        """Every setting, and the models that it compares."""
        planned = []
        for device in self.devices():
            for dtype in self.dtype:
                for base in self.bases:
                    for mode in ("train", "inference") if self.targets else self.mode:
                        models = self.models_in(base, mode, device)
                        if models:
                            planned.append((Setting(base, mode, device, dtype), models))
        return planned

    def models_in(self, base: str, mode: Mode, device: str) -> list[Model]:
        if self.targets:
            return models_of(models_for(base, mode, device, self.upstream is not None), (LEVELS,), mode)
        names = self.models or (OURS if self.upstream is None else OURS + UPSTREAM)
        return models_of(names, self.levels, mode)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    config = tyro.cli(BenchConfig, prog="hero-plugin bench", args=argv)
    if config.threads:
        torch.set_num_threads(config.threads)
    screen = Screen()
    measurements = measure(config, screen)
    results = judge(measurements, config.dtype, config.bases, lambda target: why_not(config, target))
    show(config, screen, measurements, results)
    write(config, measurements, results, "hero-plugin bench " + shlex.join(argv or ()))
    return 0


def measure(config: BenchConfig, screen: Screen) -> list[Measurement]:
    """Every setting in turn."""
    planned, effort, done = config.plan(), config.effort(), 0
    total = sum(work(models, effort) for _, models in planned)
    measurements: list[Measurement] = []
    with screen.working("measuring", total) as advance:

        def after_step() -> None:
            nonlocal done
            done += 1
            advance(done, total)

        for setting, models in planned:
            measurements += compare(
                setting,
                models,
                config.sizes(setting.base),
                effort,
                hero=config.hero,
                clones=config.upstream,
                after_step=after_step,
            )
    return measurements


def why_not(config: BenchConfig, target: Target) -> str:
    """Why a target was not measured."""
    if target.device not in config.devices():
        return "no CUDA device" if target.device == "cuda" and not torch.cuda.is_available() else "not asked for"
    if "upstream" in (target.over, target.under) and config.upstream is None:
        return "no clone: give --upstream"
    return "not timed" if not config.steps else "not asked for"


def show(config: BenchConfig, screen: Screen, measurements: Sequence[Measurement], results: Sequence[Result]) -> None:
    for group in settings_of(measurements):
        screen.show(rich_table(comparison(group, str(config.sizes(group[0].setting.base)))))
    if config.targets:
        screen.show(rich_table(verdicts(results)))
    screen.say(conditions(config))


def write(config: BenchConfig, measurements: Sequence[Measurement], results: Sequence[Result], command: str) -> None:
    if config.json is not None:
        write_text(config.json, json.dumps(to_json(config, measurements, results), indent=2) + "\n")
    if config.figure is not None and measurements:
        from hero_plugin.integrations.bench.figure import draw_comparison

        draw_comparison(measurements, config.figure)
    if config.markdown is not None:
        note = f"`{command}`\n\n{conditions(config)}"
        for device in dict.fromkeys(each.setting.device for each in measurements):
            groups = settings_of([each for each in measurements if each.setting.device == device])
            tables = [markdown(comparison(group, str(config.sizes(group[0].setting.base)))) for group in groups]
            if not config.targets:
                write_section(config.markdown, device, "\n".join([*tables, note]))
        if config.targets:
            write_section(config.markdown, "targets", markdown(verdicts(results)) + "\n" + note)


def conditions(config: BenchConfig) -> str:
    """On what, and how, it was measured."""
    parts = [f"torch {torch.__version__}", platform.machine()]
    if "cpu" in config.devices():
        parts.append(f"{torch.get_num_threads()} CPU thread{'s' * (torch.get_num_threads() > 1)}")
    if "cuda" in config.devices():
        parts.append(torch.cuda.get_device_name())
    if config.steps:
        clock = {"wall": "by the clock on the wall", "processor": "in processor time"}[config.clock]
        parts.append(f"{config.steps} steps of each model in turns {clock}; medians, and ratios within a turn")
    return ", ".join(parts)


def to_json(config: BenchConfig, measurements: Sequence[Measurement], results: Sequence[Result]) -> dict[str, Any]:
    settings = json.loads(json.dumps(asdict(config), default=str))
    return {
        "config": settings,
        "sizes": {base: asdict(config.sizes(base)) for base in config.bases},
        "versions": versions(),
        "conditions": conditions(config),
        "measurements": [each.to_json() for each in measurements],
        "targets": [result.to_json() for result in results],
    }


if __name__ == "__main__":
    raise SystemExit(main())
