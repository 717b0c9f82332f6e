"""What a sweep's file says: the runs, which are compared, and what else they are scored on."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.bases import config_from
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.run_folder import RunFolder
from hero_plugin.integrations.settings import filled, read_settings
from hero_plugin.integrations.train_config import TrainConfig

__all__ = ["FurtherSet", "Job", "Plan", "log_of", "read_plan"]


@dataclass
class Job:
    """One run of the sweep."""

    variant: str
    seed: int
    config: TrainConfig
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.config.output)


@dataclass(frozen=True)
class FurtherSet:
    """A set that finished runs are scored on; what is not given is as in each run, as with ``hero-plugin eval``."""

    name: str
    annotations: Path
    features: tuple[Path, ...] = ()
    words: Path | None = None
    query_features: Path | None = None
    durations: Path | None = None
    on_broken: OnBroken | None = None

    def __post_init__(self) -> None:
        if self.on_broken not in (None, *get_args(OnBroken)):
            raise ValueError(f"on_broken must be one of {', '.join(get_args(OnBroken))}, got {self.on_broken!r}")

    def sources(self) -> dict[str, Any]:
        """Where its queries find what they need, by the names of the flags of ``hero-plugin eval``."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("name", "annotations")
        }

    def missing(self) -> list[Path]:
        """What it names and is not there (yet)."""
        named = [self.annotations, *self.features, self.words, self.query_features, self.durations]
        return [path for path in named if path is not None and not path.exists()]


@dataclass(frozen=True)
class Plan:
    """A sweep's file, checked."""

    output: Path
    jobs: list[Job]
    """In the order of the table."""
    pairs: list[tuple[str, str]]
    """Which variant minus which."""
    sets: list[FurtherSet]


def read_plan(path: Path, threads: int) -> Plan:
    """All of it is checked before the first run starts; further sets may be made later.

    Raises:
        UserError: a field that does not exist, a value of the wrong kind, a file that training needs and is not there.
    """
    plan = read_settings(path)
    required, optional = ("output", "seeds", "variants"), ("settings", "compare", "sets")
    if set(plan) - {*required, *optional} or not {*required} <= set(plan):
        got = ", ".join(sorted(plan)) or "nothing"
        raise UserError(f"{path}: a sweep has {', '.join(required)} and maybe {', '.join(optional)}, got {got}")
    seeds, variants = plan["seeds"], plan["variants"]
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{path}: seeds must be a list of whole numbers, got {seeds!r}")
    if not isinstance(variants, Mapping) or not variants:
        raise UserError(f"{path}: variants must name at least one, each with its settings")
    output = Path(os.path.abspath(Path(plan["output"]).expanduser()))
    common = plan.get("settings", {})
    jobs = []
    for name, changes in variants.items():
        variant = _variant(common, changes, str(path), name)
        for seed in dict.fromkeys(seeds):
            folder = output / f"{_file_name(name)}-seed{seed}"
            job = config_from({"seed": seed, "threads": threads, "output": str(folder)}, str(path), variant)
            jobs.append(Job(name, seed, job.checked()))
    if len({job.config.output for job in jobs}) < len(jobs):
        raise UserError(f"{path}: two variants would share a folder; give them names that differ in letters")
    sets = _sets(plan.get("sets", {}), jobs, path)
    return Plan(output, jobs, _pairs(plan.get("compare", {}), variants, path), sets)


def log_of(job: Job) -> Path:
    return job.config.output.with_name(job.config.output.name + ".log")


def _pairs(compare: Any, variants: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """``{variant: variant}``, or several of them: ``{variant: [variant, variant]}``."""
    pairs = []
    for variant, others in compare.items() if isinstance(compare, Mapping) else [(None, compare)]:
        pairs += [(variant, other) for other in (others if isinstance(others, list) else [others])]
    if not all(isinstance(name, str) and name in variants for pair in pairs for name in pair):
        raise UserError(f"{path}: compare says which variant minus which, as {{variant: variant}}, got {compare!r}")
    return pairs


def _sets(sets: Any, jobs: list[Job], path: Path) -> list[FurtherSet]:
    """``{name: annotations}`` or ``{name: {"annotations": ..., "features": [...], ...}}``."""
    if not isinstance(sets, Mapping):
        raise UserError(f"{path}: sets are named annotations, as {{name: path}}, got {sets!r}")
    found = []
    for name, given in sets.items():
        values = {"annotations": given} if isinstance(given, str) else given
        if not isinstance(values, Mapping) or "annotations" not in values or "name" in values:
            raise UserError(f"{path}: set {name!r} is a path, or a table that has `annotations`; got {given!r}")
        of_runs = {"val", *(known for job in jobs for known, _ in job.config.test_sets())}
        if name in of_runs or "=" in name:
            raise UserError(f"{path}: set {name!r} needs another name: no =, and none of {', '.join(sorted(of_runs))}")
        found.append(filled(FurtherSet(name, Path()), values, f"{path}: set {name!r}"))
    return found


def _variant(common: Any, changes: Any, path: str, name: str) -> TrainConfig:
    """The settings of all runs under those of one variant, whose base may be another."""
    where = f"{path}: variant {name!r}"
    if not isinstance(common, Mapping) or not isinstance(changes, Mapping):
        raise UserError(f"{where}: settings and variants are tables of settings, got {changes!r}")
    base = changes.get("base", common.get("base", "emb"))
    start = config_from({**common, "base": base}, f"{path}: settings, as {base} reads them for variant {name!r}")
    return config_from({**changes, "base": base}, where, start)


def _file_name(variant: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", variant.lower()).strip("-") or "variant"
