"""``hero-plugin sweep``: variants times seeds, each in a process and a run folder of its own, then one table.

The file says what to run; relative paths in it start from the current folder, as flags do:

    {
      "output": "runs/charades-cd",
      "seeds": [0, 1, 2],
      "settings": {"annotations_train": "train.json", "annotations_test": ["iid=iid.json"], "epochs": 20},
      "variants": {
        "EMB": {"base_only": true},
        "HERO-EMB": {},
        "without SGVF": {"hero": {"sgvf": false}}
      },
      "compare": {"HERO-EMB": "EMB", "without SGVF": "HERO-EMB"}
    }

The names inside ``settings`` and the variants are those of ``hero-plugin train BASE --config``; ``"base"`` there
says which (``emb`` if none), so that one table can hold several bases. What is finished is skipped and what was
interrupted resumes, so the same command carries on after any interruption.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hero_plugin.integrations.bases import config_from
from hero_plugin.integrations.console import COLUMNS, Screen
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.interrupts import Interrupted, Interrupts
from hero_plugin.integrations.paired import compare
from hero_plugin.integrations.paired import markdown as paired_markdown
from hero_plugin.integrations.run_folder import RunFolder
from hero_plugin.integrations.settings import read_settings
from hero_plugin.integrations.train_config import TrainConfig

METRICS = dict.fromkeys((*COLUMNS, "MR-full-mAP", "HL-min-VeryGood-mAP")).keys()
"""What the table has a column for, in this order: the last two on QVHighlights only."""


@dataclass
class SweepConfig:
    """Train variants over several seeds and tabulate them. The file's form: docs/training.md."""

    config: Path
    """JSON or TOML: output, seeds, settings, variants."""
    jobs: int = 1
    """Runs at the same time."""
    threads: int = 1
    """CPU threads of each."""
    only: tuple[str, ...] = ()
    """Train these variants only; the table still holds all that is finished."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint's scores the table holds."""
    table_only: bool = False
    """Train nothing; tabulate what is finished."""


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


def main(config: SweepConfig, screen: Screen | None = None) -> int:
    """Run what is missing, write ``results.md`` and ``results.json``; 1 if a run failed, else 0."""
    screen = screen or Screen()
    if config.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {config.jobs}")
    output, jobs, pairs = read_sweep(config.config, config.threads)
    unknown = [name for name in config.only if name not in {job.variant for job in jobs}]
    if unknown:
        known = ", ".join(dict.fromkeys(job.variant for job in jobs))
        raise UserError(f"--only {', '.join(unknown)}: no such variant; there are {known}")
    failed = []
    if not config.table_only:
        todo = [job for job in jobs if not config.only or job.variant in config.only]
        failed = run_jobs(todo, config.jobs, screen)
    results = collect(jobs, config.checkpoint, pairs)
    text = markdown(results)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_write(output / "results.json") as stream:
        stream.write(json.dumps(results, indent=2) + "\n")
    with atomic_write(output / "results.md") as stream:
        stream.write(text)
    screen.say("\n" + text)
    screen.say(f"table: {output / 'results.md'}, numbers: {output / 'results.json'}")
    for job in failed:
        screen.say(f"failed: {job.name}; see {_log(job)}")
    return 1 if failed else 0


def read_sweep(path: Path, threads: int) -> tuple[Path, list[Job], list[tuple[str, str]]]:
    """The output folder, every run in the order of the table, and which variant to compare with which.

    All of it is checked before the first run starts.

    Raises:
        UserError: a field that does not exist, a value of the wrong kind, a file that is not there.
    """
    plan = read_settings(path)
    unknown = set(plan) - {"output", "seeds", "settings", "variants", "compare"}
    if unknown or not {"output", "seeds", "variants"} <= set(plan):
        got = ", ".join(sorted(plan)) or "nothing"
        raise UserError(f"{path}: a sweep has output, seeds, settings, variants and compare, got {got}")
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
    return output, jobs, _pairs(plan.get("compare", {}), variants, path)


def _pairs(compare: Any, variants: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """``{variant: variant}``, or several of them: ``{variant: [variant, variant]}``."""
    pairs = []
    for variant, others in compare.items() if isinstance(compare, Mapping) else [(None, compare)]:
        pairs += [(variant, other) for other in (others if isinstance(others, list) else [others])]
    if not all(isinstance(name, str) and name in variants for pair in pairs for name in pair):
        raise UserError(f"{path}: compare says which variant minus which, as {{variant: variant}}, got {compare!r}")
    return pairs


def _variant(common: Any, changes: Any, path: str, name: str) -> TrainConfig:
    """The settings of all runs under those of one variant, whose base may be another."""
    where = f"{path}: variant {name!r}"
    if not isinstance(common, Mapping) or not isinstance(changes, Mapping):
        raise UserError(f"{where}: settings and variants are tables of settings, got {changes!r}")
    base = changes.get("base", common.get("base", "emb"))
    start = config_from({**common, "base": base}, f"{path}: settings, as {base} reads them for variant {name!r}")
    return config_from({**changes, "base": base}, where, start)


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
                    screen.say(f"started: {job.name} (log: {_log(job)})")
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


def collect(jobs: Sequence[Job], checkpoint: str, pairs: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Scores of the finished runs: ``{set: {variant: {"seeds": [...], metric: {"mean", "std", "values"}}}}``.

    With ``pairs``, their differences, too, by set: see :func:`~hero_plugin.integrations.paired.compare`.
    """
    table: dict[str, dict[str, Any]] = {}
    for job in jobs:
        if not job.run.finished:
            continue
        for name, scores in job.run.results()[checkpoint].items():
            row = table.setdefault(name, {}).setdefault(job.variant, {"seeds": []})
            row["seeds"].append(job.seed)
            for metric in METRICS:
                if metric in scores:
                    row.setdefault(metric, {"values": []})["values"].append(scores[metric])
    for rows in table.values():
        for row in rows.values():
            for metric in METRICS & row.keys():
                values = row[metric]["values"]
                row[metric]["mean"] = statistics.fmean(values)
                row[metric]["std"] = statistics.stdev(values) if len(values) > 1 else None
    differences = {name: compare(rows, pairs, [*METRICS]) for name, rows in table.items()}
    return {"checkpoint": checkpoint, "sets": table, "differences": differences}


def markdown(results: Mapping[str, Any]) -> str:
    """Tables for each set: mean and sample standard deviation over the seeds, in percent, and differences."""
    parts = []
    for name, rows in results["sets"].items():
        columns = [metric for metric in METRICS if any(metric in row for row in rows.values())]
        lines = [f"**{name}**", "", f"| | {' | '.join(columns)} | seeds |", "|---|" + "---:|" * (len(columns) + 1)]
        for variant, row in rows.items():
            cells = [_cell(row[metric]) if metric in row else "-" for metric in columns]
            lines.append(f"| {variant} | {' | '.join(cells)} | {len(row['seeds'])} |")
        if differences := results.get("differences", {}).get(name):
            lines += ["", paired_markdown(differences, columns)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts or ["No run is finished yet."]) + "\n"


def _cell(metric: Mapping[str, Any]) -> str:
    spread = "" if metric["std"] is None else f" ± {metric['std']:.2f}"
    return f"{metric['mean']:.2f}{spread}"


def _start(job: Job) -> subprocess.Popen[bytes]:
    folder = job.config.output
    settings = folder.with_name(folder.name + ".settings.json")
    with atomic_write(settings) as stream:
        stream.write(json.dumps(job.config.to_json(), indent=2) + "\n")
    command = [sys.executable, "-m", "hero_plugin.integrations.cli", "train", job.config.base]
    command += ["--config", str(settings), "--output", str(folder), "--resume"]
    threads = str(job.config.threads)
    # A session of its own: Ctrl-C reaches this process alone, which then stops each run once.
    with open(_log(job), "ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )


def _log(job: Job) -> Path:
    return job.config.output.with_name(job.config.output.name + ".log")


def _file_name(variant: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", variant.lower()).strip("-") or "variant"
