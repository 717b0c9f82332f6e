"""What a sweep's file says: the runs, which are compared, and what else they are scored on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch

from hero_plugin.integrations.data.checks import OnBroken
from hero_plugin.integrations.evaluation.evaluate import EvalConfig, Reader, evaluate_run
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.support.files import checksum, write_json
from hero_plugin.integrations.support.process import Interrupted, Interrupts
from hero_plugin.integrations.support.settings import filled, read_settings
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.run_folder import RunFolder


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


# The runs of a sweep, each a process of its own.


def run_jobs(jobs: Sequence[Job], at_once: int, screen: Screen) -> list[Job]:
    """Run the jobs that are not finished, so many at once. Returns those that failed.

    Raises:
        Interrupted: after the running ones have saved and stopped.
    """
    waiting = []
    for job in jobs:
        if job.run.finished:
            job.run.check_same(job.config.to_json())
            screen.say(f"finished already: {job.name}")
        else:
            waiting.append(job)
    running: list[Job] = []
    failed: list[Job] = []
    total = sum(job.config.epochs for job in waiting)
    with Interrupts() as interrupts, screen.working("sweep (epochs)", total) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < at_once and not interrupts.requested:
                    job = waiting.pop(0)
                    job.process = _start(job)
                    running.append(job)
                    screen.say(f"started: {job.name} (log: {log_of(job)})")
                if interrupts.requested:
                    raise Interrupted("stopped; every run has saved. The same command carries on")
                time.sleep(0.2)
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    if job.process.returncode:
                        failed.append(job)
                    screen.say(f"{'FAILED' if job.process.returncode else 'finished'}: {job.name}")
                left = sum(job.config.epochs for job in waiting)
                left += sum(job.config.epochs - len(job.run.history()) for job in running)
                progress(total - left, total)
        finally:
            for job in running:
                job.process.terminate()
            for job in running:
                job.process.wait()
    return failed


def _start(job: Job) -> subprocess.Popen[bytes]:
    folder = job.config.output
    settings = folder.with_name(folder.name + ".settings.json")
    write_json(settings, job.config.to_json())
    command = [sys.executable, "-m", "hero_plugin.integrations.cli", "train", job.config.base]
    command += ["--config", str(settings), "--output", str(folder), "--resume"]
    threads = str(job.config.threads)
    # A session of its own: Ctrl-C reaches this process alone, which then stops each run once.
    with open(log_of(job), "ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )


# Finished runs on further sets: rewordings, another dataset, whatever came later. Each is scored once and kept.


def score_further(
    jobs: Sequence[Job], sets: Sequence[FurtherSet], checkpoint: str, threads: int, screen: Screen
) -> list[str]:
    """Score the finished runs on the sets that are there, where they have not been. Returns what failed, and why.

    Raises:
        Interrupted: with all scores so far kept.
    """
    todo = [
        (each, [job for job in jobs if job.run.finished and not _known(job, each, checkpoint)])
        for each in sets
        if not each.missing()
    ]
    total, done = sum(len(left) for _, left in todo), 0
    failed: dict[tuple[str, str], list[str]] = {}
    if not total:
        return []
    torch.set_num_threads(threads)
    with Interrupts() as interrupts, screen.working("further sets (runs)", total) as progress:
        for each, left in todo:
            config = _evaluation(each, checkpoint)
            reader = Reader(config, screen)
            for job in left:
                try:
                    found = evaluate_run(job.run, replace(config, device=job.config.device), reader, Screen(quiet=True))
                    _keep(job, each, checkpoint, found.scores[each.name])
                    screen.say(f"scored on {each.name}: {job.name}")
                except (UserError, DataError, FileNotFoundError) as error:
                    failed.setdefault((each.name, str(error)), []).append(job.name)
                done += 1
                progress(done, total)
                if interrupts.requested:
                    raise Interrupted("stopped; every score so far is kept. The same command carries on")
    return [f"{name}, by {'; '.join(runs)}: {why}" for (name, why), runs in failed.items()]


def further_scores(job: Job, sets: Sequence[FurtherSet], checkpoint: str) -> dict[str, dict[str, float]]:
    """Scores of a run by set, of those sets on which it has been scored as they and it are now."""
    found = {each.name: _known(job, each, checkpoint) for each in sets if not each.missing()}
    return {name: scores for name, scores in found.items() if scores}


def _evaluation(each: FurtherSet, checkpoint: str) -> EvalConfig:
    annotations = (f"{each.name}={each.annotations}",)
    return EvalConfig(
        run=(), annotations=annotations, checkpoint=checkpoint, **each.sources(), pairs=False, resamples=0
    )


def _known(job: Job, each: FurtherSet, checkpoint: str) -> dict[str, float] | None:
    """What the run's file says, unless the run was trained again or the annotations have changed since."""
    kept = _read(job).get(each.name, {}).get(checkpoint)
    return kept["scores"] if kept and kept["made_from"] == _made_from(job, each) else None


def _keep(job: Job, each: FurtherSet, checkpoint: str, scores: dict[str, float]) -> None:
    kept = _read(job)
    made_from = _made_from(job, each)
    kept.setdefault(each.name, {})[checkpoint] = {"made_from": made_from, "scores": scores}
    write_json(_file(job), kept)


def _made_from(job: Job, each: FurtherSet) -> dict[str, Any]:
    """What scores hang on: the training and the annotations by contents, features and vectors, often large, by name.

    The training by its own results, which are small and stay where checkpoints have been deleted.
    """
    given = {name: json.loads(json.dumps(value, default=str)) for name, value in each.sources().items() if value}
    return {"training": _checksum(job.run.results_file), "annotations": _checksum(each.annotations), **given}


def _checksum(path: Path) -> str:
    status = path.stat()
    return _checksum_of(path, status.st_mtime_ns, status.st_size)


@cache
def _checksum_of(path: Path, changed: int, size: int) -> str:
    return checksum(path)


def _read(job: Job) -> dict[str, Any]:
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(_file(job).read_text("utf-8"))
    return {}


def _file(job: Job) -> Path:
    return job.config.output.with_name(job.config.output.name + ".sets.json")
