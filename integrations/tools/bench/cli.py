"""``hero-plugin bench``: measure, print, and write where asked."""

import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

from hero_plugin import HeroConfig
from hero_plugin.integrations.support import UserError, versions
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.tools.bench import models, report
from hero_plugin.integrations.tools.bench.measure import Clock, Measurement, compare
from hero_plugin.integrations.tools.bench.models import Format, Mode, ModelName, Setting, Variant
from hero_plugin.integrations.tools.bench.report import Report
from hero_plugin.integrations.training.bases import BASE_NAMES, BaseName
from hero_plugin.integrations.training.distributed import choose_device

Device = Literal["auto", "cpu", "cuda"]
PATHS = {"--upstream": "FOLDER_OF_CLONES", "--json": "", "--figure": "", "--markdown": ""}


@dataclass
class BenchConfig:
    """Measure what HERO costs, beside the plain base and beside a literal implementation of the paper.

    Parameters, FLOPs, step time and peak memory, in turns on the same random inputs.
    """

    bases: tuple[BaseName, ...] = BASE_NAMES
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
    read: tuple[Path, ...] = ()
    """Show what was measured before, from files of --json, and measure nothing."""

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
    """Renew the tables of this page between its comments <!-- bench cpu --> and <!-- end of bench cpu -->, and those of
    cuda; with --targets, those of targets instead; with --targets and --read, all."""

    def __post_init__(self) -> None:
        if wrong := too_small(self, steps=0, warmup=0, threads=0):
            raise UserError("\n".join(wrong))
        if min(self.levels, default=1) < 1:
            raise UserError(f"--levels must be at least 1, got {min(self.levels)}")
        if self.upstream is None and any(name in models.UPSTREAM for name in self.models):
            raise UserError("--models upstream needs --upstream: the folder that holds the clones")
        for path in (self.json, self.figure, self.markdown):
            if path is not None and not path.parent.is_dir():
                raise UserError(f"no folder {path.parent} to write {path.name} into; create it first")
        if self.read and self.json is not None:
            raise UserError("--json writes what is measured, and --read measures nothing; leave one of them out")
        if self.markdown is not None and not self.markdown.is_file():
            raise UserError(f"no page {self.markdown} to renew the tables of")

    def devices(self) -> tuple[str, ...]:
        """Return the devices to measure on: ``cpu``, ``cuda``."""
        if self.device == ("auto",) and self.targets:
            return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        return tuple(dict.fromkeys(choose_device(name).type for name in self.device))

    def plan(self) -> list[tuple[Setting, list[Variant]]]:
        """Return every setting, and the variants that it compares."""
        modes: tuple[Mode, ...] = ("train", "inference") if self.targets else self.mode
        every = itertools.product(self.devices(), self.dtype, self.bases, modes)
        settings = [Setting(base, mode, device, dtype) for device, dtype, base, mode in every]
        planned = [(setting, self.variants(setting)) for setting in settings]
        return [(setting, variants) for setting, variants in planned if variants]

    def variants(self, setting: Setting) -> list[Variant]:
        """Return what to compare in a setting."""
        if self.targets:
            names = report.models_for(setting.base, setting.mode, setting.device, self.upstream is not None)
            return models.variants_of(names, (report.LEVELS,), setting.mode)
        names = self.models or (models.OURS if self.upstream is None else models.OURS + models.UPSTREAM)
        return models.variants_of(names, self.levels, setting.mode)


def main(config: BenchConfig, argv: Sequence[str]) -> None:
    """Measure, print, and write where asked. ``argv`` has the flags that say what, for the report."""
    screen = Screen()
    reports = [Report.read(path) for path in config.read] or [measure(config, screen, command_of(argv))]
    for each in reports:
        for group in each.groups():
            screen.show(report.comparison(group).terminal())
        screen.say(each.conditions)
    parts = {} if config.targets and not config.read else report.device_parts(reports)
    if config.targets:
        targets = report.verdicts([verdict for each in reports for verdict in report.judge(each.measurements)])
        screen.show(targets.terminal())
        sources = [] if config.read else [each.source for each in reports]  # else under the tables themselves
        parts["targets"] = "\n".join([targets.page(), *sources])
    if config.figure is not None:
        report.draw_comparison([group for each in reports for group in each.groups()], config.figure)
    if config.markdown is not None:
        report.write_page(config.markdown, parts)


def measure(config: BenchConfig, screen: Screen, command: str) -> Report:
    """Measure every setting in turn."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.clock == "processor" and "cuda" in config.devices():
        raise UserError("--clock processor does not see a GPU's time; leave it out, or give --device cpu")
    planned = config.plan()
    each_variant = 1 + (config.warmup + config.steps if config.steps else 0)
    done, total = itertools.count(1), each_variant * sum(len(variants) for _, variants in planned)
    measurements: list[Measurement] = []
    made = Report(command, conditions(config), measurements)
    settings = json.loads(json.dumps(asdict(config), default=str))
    sizes = {"batch": config.batch, "clips": config.clips, "words": config.words, "dim": config.dim}
    with screen.working("measuring", total) as advance:
        for number, (setting, variants) in enumerate(planned, 1):
            measurements += compare(
                setting,
                variants,
                models.sizes_of(setting.base, **sizes),
                steps=config.steps,
                warmup=config.warmup,
                seed=config.seed,
                clock=config.clock,
                compile=config.compile,
                hero=config.hero,
                clones=config.upstream,
                after_step=lambda: advance(next(done), total),
            )
            if config.json is not None:  # after each setting: all of them can take an hour
                made.write(config.json, config=settings, versions=versions())
            if len(planned) > 1:
                screen.say(f"measured {number} of {len(planned)}: {setting}")
    return made


def conditions(config: BenchConfig) -> str:
    """Return on what, and how, it is measured."""
    threads, devices = torch.get_num_threads(), config.devices()
    parts = [f"torch {torch.__version__}"]
    if "cpu" in devices:
        parts.append(f"{threads} CPU thread{'s' * (threads > 1)}")
    if "cuda" in devices:
        parts.append(torch.cuda.get_device_name())
    if config.steps:
        clock = {"wall": "by the clock on the wall", "processor": "in processor time"}[config.clock]
        compiled = "compiled " * config.compile
        parts.append(
            f"{config.steps} steps of each {compiled}model in turns, {clock}; ratios are medians over the turns"
        )
    return ", ".join(parts)


def command_of(argv: Sequence[str]) -> str:
    """Return the command that measures the same elsewhere: without files to write, and where the clones lie here."""
    words, rest = ["hero-plugin", "bench"], list(argv)
    while rest:
        flag, equals, _ = rest[0].partition("=")
        if flag in PATHS:
            words += [flag, PATHS[flag]] if PATHS[flag] else []
            del rest[: 1 if equals else 2]
        else:
            words.append(rest.pop(0))
    return shlex.join(words)
