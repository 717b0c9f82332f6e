"""Variants of a model over several seeds: their runs, and one table of them."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure

from hero_plugin.integrations.data.checks import OnBroken
from hero_plugin.integrations.data.feature_bank import manifest_marks
from hero_plugin.integrations.evaluation.evaluate import EvalConfig, Reader, evaluate_run
from hero_plugin.integrations.scoring.intervals import CONFIDENCE, METRICS, summary, trainings_table
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.support.files import checksum, write_json, write_text
from hero_plugin.integrations.support.plotting import BASE, HERO, INK, save_figure, table_figure
from hero_plugin.integrations.support.process import Interrupted, Interrupts
from hero_plugin.integrations.support.settings import filled, read_settings
from hero_plugin.integrations.support.tables import Cell, Row, Table, check_endings, write_table
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.run_folder import SWEEP_FILE, RunFolder


@dataclass
class SweepConfig:
    """Train variants over several seeds, tabulate and draw them. The file's form: docs/guide/sweep.md."""

    config: Path
    """JSON or TOML: output, seeds, settings, variants; compare, sets."""
    jobs: int = 1
    """Runs at the same time."""
    threads: int = 1
    """CPU threads of each."""
    only: tuple[str, ...] = ()
    """Train and score these variants only; the table still holds all that is finished."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint's scores the table holds."""
    table_only: bool = False
    """Train and score nothing; tabulate what is finished."""
    figures: bool = True
    """Draw the table, a picture for each figure of merit."""
    table: tuple[Path, ...] = ()
    """Write the table here, too: .tex for LaTeX, .csv, .md or .json, by the ending."""


def main(config: SweepConfig, screen: Screen | None = None) -> int:
    """Run what is missing, write ``results.md``, ``results.json`` and ``figures/``; return 1 if anything failed."""
    screen = screen or Screen()
    if config.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {config.jobs}")
    check_endings("--table", config.table)
    plan = read_plan(config.config, config.threads)
    variants = list(dict.fromkeys(job.variant for job in plan.jobs))
    if unknown := [name for name in config.only if name not in variants]:
        raise UserError(f"--only {', '.join(unknown)}: no such variant; there are {', '.join(variants)}")
    for each in plan.sets:
        if absent := each.missing():
            screen.say(f"note: {each.name} waits for {', '.join(map(str, absent))}; once it is there, run this again")
    write_json(plan.output / SWEEP_FILE, plan.variants())
    failed = []
    if not config.table_only:
        todo = [job for job in plan.jobs if not config.only or job.variant in config.only]
        failed = [f"{job.name}; see {job.beside('.log')}" for job in run_jobs(todo, config.jobs, screen)]
        failed += score_further(todo, plan.sets, config.checkpoint, config.jobs * config.threads, screen)
    results = collect(plan, config.checkpoint)
    text = sweep_markdown(results)
    for note in unscored(plan, config):
        screen.say(f"note: {note}")
    write_json(plan.output / "results.json", results)
    write_text(plan.output / "results.md", text)
    screen.say("\n" + text)
    written = [write_table(trainings_table(results), path) for path in config.table]
    screen.say(f"table: {', '.join(map(str, [plan.output / 'results.md', *written]))}")
    screen.say(f"numbers: {plan.output / 'results.json'}")
    if config.figures and results["sets"]:
        screen.say(f"figures: {', '.join(map(str, draw_sweep(results, plan.output / 'figures')))}")
    for what in failed:
        screen.say(f"failed: {what}")
    return 1 if failed else 0


@dataclass(frozen=True)
class Job:
    """One run of the sweep."""

    variant: str
    seed: int
    config: TrainConfig
    folder: Path

    @property
    def name(self) -> str:
        """Its variant and seed, for messages."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def run(self) -> RunFolder:
        """Its run folder."""
        return RunFolder(self.folder)

    def beside(self, ending: str) -> Path:
        """Return the file beside its run folder that has the folder's name with an ending."""
        return self.folder.with_name(self.folder.name + ending)


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

    def sources(self) -> dict[str, Any]:
        """Return where its queries find what they need, by the names of the flags of ``hero-plugin eval``."""
        return {name: value for name, value in vars(self).items() if name not in ("name", "annotations")}

    def missing(self) -> list[Path]:
        """Return the files and folders that it names and that are not there (yet)."""
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

    def variants(self) -> dict[str, Any]:
        """Return what ``SWEEP_FILE`` holds."""
        return {
            name: {
                "runs": [job.folder.name for job in self.jobs if job.variant == name],
                "compared_with": [other for variant, other in self.pairs if variant == name],
            }
            for name in dict.fromkeys(job.variant for job in self.jobs)
        }


def read_plan(path: Path, threads: int) -> Plan:
    """Read and check a sweep's file, before the first run starts; further sets may be made later.

    Raises ``UserError`` for a field that does not exist, a value of the wrong kind, a file that training needs and is
    not there.
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
    jobs = []
    for name, changes in variants.items():
        variant = _variant(plan.get("settings", {}), changes, str(path), name)
        file_name = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "variant"
        for seed in dict.fromkeys(seeds):
            folder = output / f"{file_name}-seed{seed}"
            config = variant.updated({"seed": seed, "threads": threads, "output": str(folder)}, str(path))
            jobs.append(Job(name, seed, config.checked(), folder))
    if len({job.folder for job in jobs}) < len(jobs):
        raise UserError(f"{path}: two variants would share a folder; give them names that differ in letters")
    sets = _sets(plan.get("sets", {}), jobs, path)
    return Plan(output, jobs, _pairs(plan.get("compare", {}), variants, path), sets)


def _variant(common: Any, changes: Any, path: str, name: str) -> TrainConfig:
    """Return the settings of all runs under those of one variant, whose base may be another."""
    where = f"{path}: variant {name!r}"
    if not isinstance(common, Mapping) or not isinstance(changes, Mapping):
        raise UserError(f"{where}: settings and variants are tables of settings, got {changes!r}")
    base = changes.get("base", common.get("base", "emb"))
    start = config_from({**common, "base": base}, f"{path}: settings, as {base} reads them for variant {name!r}")
    return start.updated(changes, where)


def _pairs(compare: Any, variants: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """Read ``{variant: variant}``, or several of them: ``{variant: [variant, variant]}``."""
    pairs: list[tuple[Any, Any]] = []
    for variant, others in compare.items() if isinstance(compare, Mapping) else [(None, compare)]:
        pairs += [(variant, other) for other in (others if isinstance(others, list) else [others])]
    if not all(isinstance(name, str) and name in variants for pair in pairs for name in pair):
        raise UserError(f"{path}: compare says which variant minus which, as {{variant: variant}}, got {compare!r}")
    return pairs


def _sets(sets: Any, jobs: list[Job], path: Path) -> list[FurtherSet]:
    """Read ``{name: annotations}`` or ``{name: {"annotations": ..., "features": [...], ...}}``."""
    if not isinstance(sets, Mapping):
        raise UserError(f"{path}: sets are named annotations, as {{name: path}}, got {sets!r}")
    of_runs = {"val", *(known for job in jobs for known, _ in job.config.test_sets())}
    found = []
    for name, given in sets.items():
        values = {"annotations": given} if isinstance(given, str) else given
        if not isinstance(values, Mapping) or "annotations" not in values or "name" in values:
            raise UserError(f"{path}: set {name!r} is a path, or a table that has `annotations`; got {given!r}")
        if name in of_runs or "=" in name:
            raise UserError(f"{path}: set {name!r} needs another name: no =, and none of {', '.join(sorted(of_runs))}")
        found.append(filled(FurtherSet(name, Path()), values, f"{path}: set {name!r}"))
    return found


def run_jobs(jobs: Sequence[Job], at_once: int, screen: Screen) -> list[Job]:
    """Run the jobs that are not finished, so many at once. Return those that failed.

    Raises ``Interrupted`` after the running ones have saved and stopped.
    """
    waiting, failed = [], []
    for job in jobs:
        if job.run.finished:
            job.run.check_same(job.config.to_json(), to_resume=False)
            screen.say(f"finished already: {job.name}")
        else:
            waiting.append(job)
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    total = sum(job.config.epochs for job in waiting)
    with Interrupts() as interrupts, screen.working("sweep (epochs)", total) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < at_once and not interrupts.requested:
                    job = waiting.pop(0)
                    running.append((job, _start(job)))
                    screen.say(f"started: {job.name} (log: {job.beside('.log')})")
                if interrupts.requested:
                    raise Interrupted("stopped; every run has saved. The same command carries on")
                time.sleep(0.2)
                for job, process in [each for each in running if each[1].poll() is not None]:
                    running.remove((job, process))
                    if process.returncode:
                        failed.append(job)
                    screen.say(f"{'FAILED' if process.returncode else 'finished'}: {job.name}")
                left = sum(job.config.epochs for job in waiting)
                left += sum(job.config.epochs - len(job.run.history()) for job, _ in running)
                progress(total - left, total)
        finally:
            for _, process in running:
                process.terminate()
            for _, process in running:
                process.wait()
    return failed


def _start(job: Job) -> subprocess.Popen[bytes]:
    settings, threads = job.beside(".settings.json"), str(job.config.threads)
    write_json(settings, job.config.to_json())
    command = [sys.executable, "-m", "hero_plugin.integrations.cli", "train", job.config.base]
    command += ["--config", str(settings), "--output", str(job.folder)]
    command += ["--resume"] if job.run.config_file.is_file() else []
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with open(job.beside(".log"), "ab") as log:
        # A session of its own: Ctrl-C reaches this process alone, which then stops each run once.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
        )


def score_further(
    jobs: Sequence[Job], sets: Sequence[FurtherSet], checkpoint: str, threads: int, screen: Screen
) -> list[str]:
    """Score the finished runs on the sets that are there, where they have not been. Return what failed, and why.

    Raises ``Interrupted`` with all scores so far kept.
    """
    todo = {
        each: [job for job in jobs if job.run.finished and not _known(job, each, checkpoint)]
        for each in sets
        if not each.missing()
    }
    total, done = sum(map(len, todo.values())), 0
    if not total:
        return []
    failed: dict[tuple[str, str], list[str]] = {}
    torch.set_num_threads(threads)
    with Interrupts() as interrupts, screen.working("further sets (runs)", total) as progress:
        for each, left in todo.items():
            asked = {"annotations": (f"{each.name}={each.annotations}",), "checkpoint": checkpoint, **each.sources()}
            config = EvalConfig(run=(), pairs=False, resamples=0, **asked)
            reader = Reader(config, screen)
            for job in left:
                try:
                    made_from = _made_from(job, each)  # before: what changes meanwhile is scored again
                    found = evaluate_run(job.run, replace(config, device=job.config.device), reader, Screen(quiet=True))
                    kept = _kept(job)
                    scored = {"made_from": made_from, "scores": found.scores[each.name]}
                    kept.setdefault(each.name, {})[checkpoint] = scored
                    write_json(job.beside(".sets.json"), kept)
                    screen.say(f"scored on {each.name}: {job.name}")
                except (UserError, DataError, FileNotFoundError) as error:
                    failed.setdefault((each.name, str(error)), []).append(job.name)
                done += 1
                progress(done, total)
                if interrupts.requested:
                    raise Interrupted("stopped; every score so far is kept. The same command carries on")
    return [f"{name}, by {'; '.join(runs)}: {why}" for (name, why), runs in failed.items()]


def _known(job: Job, each: FurtherSet, checkpoint: str) -> dict[str, float] | None:
    """Return a run's scores on a set; None once the run was trained again or what it was scored on has changed."""
    kept = _kept(job).get(each.name, {}).get(checkpoint)
    return kept["scores"] if kept and kept["made_from"] == _made_from(job, each) else None


def _kept(job: Job) -> dict[str, Any]:
    """Return the scores kept beside a run, by set and checkpoint."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(job.beside(".sets.json").read_text("utf-8"))
    return {}


def _made_from(job: Job, each: FurtherSet) -> dict[str, Any]:
    """Return what scores depend on: training, annotations and words by contents; features, often large, by manifest.

    The training by its own results, which are small and stay where checkpoints have been deleted. Features that have
    no manifest count by path alone.
    """
    files = {"training": job.run.results_file, "annotations": each.annotations, "durations": each.durations}
    contents = {name: checksum(path) for name, path in files.items() if path is not None}
    if each.words is not None and each.words.is_file():
        contents["words_sha256"] = checksum(each.words)
    given = {name: json.loads(json.dumps(value, default=str)) for name, value in each.sources().items() if value}
    # Scores of earlier versions lack these marks, and so are computed anew.
    folders = [*each.features, *([each.query_features] if each.query_features else [])]
    return {**given, **contents, **({"made_by": manifest_marks(folders)} if folders else {})}


def collect(plan: Plan, checkpoint: str) -> dict[str, Any]:
    """Return the scores of all finished runs, on their own sets and on further ones, as ``summary`` does."""
    scores: dict[str, dict[str, dict[int, Mapping[str, float]]]] = {}
    for job in plan.jobs:
        if job.run.finished:
            job.run.check_same(job.config.to_json(), to_resume=False)
            further = {each.name: _known(job, each, checkpoint) for each in plan.sets if not each.missing()}
            for name, found in {**job.run.results()[checkpoint], **further}.items():
                if found:
                    scores.setdefault(name, {}).setdefault(job.variant, {})[job.seed] = found
    return {"checkpoint": checkpoint, **summary(scores, plan.pairs)}


def unscored(plan: Plan, config: SweepConfig) -> list[str]:
    """Say which finished runs the flags kept from being scored on a set as it is now: the table lacks them there."""
    flags = " and ".join([*(["--only"] if config.only else []), *(["--table-only"] if config.table_only else [])])
    left = [
        job
        for job in plan.jobs
        if job.run.finished and (config.table_only or (config.only and job.variant not in config.only))
    ]
    notes = []
    for each in plan.sets:
        lacking = [] if each.missing() else [job for job in left if not _known(job, each, config.checkpoint)]
        seeds: dict[str, list[str]] = {}
        for job in lacking:
            seeds.setdefault(job.variant, []).append(str(job.seed))
        if seeds:
            names = ", ".join(f"{name} (seed {', '.join(them)})" for name, them in seeds.items())
            notes.append(
                f"{names}: not scored on {each.name} as it is now, so not in its rows of the table; the command "
                f"without {flags} scores what is left"
            )
    return notes


def sweep_markdown(results: Mapping[str, Any]) -> str:
    """Return a table of all sets: mean and sample standard deviation over the seeds, in percent, and differences."""
    return (trainings_table(results).markdown() if results["sets"] else "No run is finished yet.") + "\n"


def draw_sweep(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw a figure per metric that ``results.json`` holds, as ``folder/METRIC.png``."""
    known = {metric for rows in results["sets"].values() for row in rows.values() for metric in row}
    return [
        save_figure(metric_figure(results, metric), folder / (re.sub(r"[^\w.-]+", "_", metric) + ".png"))
        for metric in METRICS
        if metric in known
    ]


def metric_figure(results: Mapping[str, Any], metric: str) -> Figure:
    """Draw one metric, sets side by side: the variants' scores, and below them the pairs' differences, if any."""
    table = trainings_table(results)
    cells = {row.labels[:2]: row.cells[table.columns.index(metric)] for row in table.rows}
    cells = {key: cell for key, cell in cells.items() if cell.value is not None}
    sets, names = (tuple(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
    # A variant that does not run on every set keeps its line in all, so that lines can be compared across.
    rows = [Row((name,), tuple(cells.get((each, name), Cell(None)) for each in sets)) for name in names]
    # The bases: variants that others are compared with and that are compared with none.
    every = [each for found in results["differences"].values() for each in found]
    bases = {each["minus"] for each in every} - {each["variant"] for each in every}

    def color(row: Row, cell: Cell) -> str:
        ours = (cell.value or 0) > 0 if cell.difference else row.labels[0] not in bases
        return HERO if ours else BASE

    note = _caption(results, any(cell.difference for cell in cells.values()))
    figure = table_figure(Table(("model",), sets, rows, caption=note), color, trainings=True)
    # The same scale: what is large on one set is so on the next.
    differences = figure.axes[len(sets) :]
    ends = [end for axis in differences for end in axis.get_xlim()]
    for axis in differences:
        axis.set_xlim(min(ends), max(ends))
    title = f"{metric}, {results['checkpoint']} checkpoint"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure


def _caption(results: Mapping[str, Any], compared: bool) -> str:
    seeds = sorted({len(row["seeds"]) for rows in results["sets"].values() for row in rows.values()})
    many = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    parts = [f"mean and standard deviation over {many} seed{'s' * (seeds[-1] > 1)}; pale: single seeds"]
    if compared:
        parts.append(f"Differences: {CONFIDENCE} % interval of a paired t-test, filled where it excludes 0")
    return ". ".join(parts)
