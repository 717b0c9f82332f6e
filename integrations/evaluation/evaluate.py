"""Evaluation of runs on any annotations: ``hero-plugin eval --run FOLDER``."""

import os
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from hero_plugin.integrations.data.feature_bank import StoreBank
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.evaluation import robustness
from hero_plugin.integrations.evaluation.robustness_report import check_outputs, show_robustness
from hero_plugin.integrations.scoring.submissions import write_submission
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import nan_to_null, write_json
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.config import AnswerInputs, TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData, originals_of
from hero_plugin.integrations.training.distributed import choose_device, keep_freed_memory
from hero_plugin.integrations.training.load_run import ground_with_bar, load_run, with_inputs
from hero_plugin.integrations.training.queries import BridgedWords
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import brief_scores, scores_table
from hero_plugin.integrations.training.train import show_official


@dataclass(kw_only=True)
class EvalConfig(AnswerInputs):
    """Score runs, base or HERO, by how far queries drift from their words, with confidence intervals.

    Words outside a run's vocabulary get their vectors from the word table.
    """

    run: tuple[Path, ...]  # type: ignore[assignment]
    """Folder of the run. Several are compared; runs that differ in their seed alone count as one model, and a sweep's
    folder stands for all finished runs in it."""
    annotations: tuple[str, ...] = ()
    """Annotations to score, as PATH or NAME=PATH; none: the run's own test sets."""
    checkpoint: str = "best"
    """best or last."""
    json: Path | None = None
    """Write the scores here, with everything by drift."""
    table: tuple[Path, ...] = ()
    """Write one table of all sets and models here: .tex for LaTeX, .csv, .md or .json, by the ending."""
    figures: Path | None = None
    """Draw the scores by drift, and the pairs of originals and rewordings, as PNGs into this folder."""
    predictions: Path | None = None
    """Write each query's moment here, one JSON line per query. Of a DETR, a submission in QVHighlights' form; of
    several sets, one each, with the set's name in the file's."""
    compare: bool = False
    """Answer without --bridge and --levels, too, and compare the two, in the same queries."""
    pairs: bool = True
    """Of reworded queries, answer the originals, too, and compare; their sentences are in the file."""
    pool: bool = True
    """Runs that differ in their seed alone are one model."""
    draw_seeds: bool = True
    """Draw trainings for the intervals of such a model, too, so that they speak of training anew; else they speak of
    these trainings."""
    resamples: int = 2000
    """Draws behind the intervals; 0: no figures by drift."""
    seed: int = 0
    """Of the draws."""
    batch_size: int = 64
    """Queries at once."""
    threads: int = 0
    """CPU threads; 0: as many as the run had, which decides the last bits of its scores, if there are as many cores."""


def main(config: EvalConfig, screen: Screen | None = None) -> dict[str, dict[str, float]]:
    """Score, print and write; return the scores by set; of several runs, by run and set, as "RUN: SET"."""
    screen = screen or Screen()
    draws = robustness.Draws(config.resamples, config.seed, config.draw_seeds) if config.resamples else None
    _check(config)
    runs = robustness.find_runs(config.run, screen)
    if len(runs) > 1 and config.predictions is not None:
        raise UserError(f"--predictions writes those of one run, got {len(runs)}")
    if not config.annotations:
        own = {run.path: [name for name, _ in run.settings().test_sets()] for run in runs}
        (first, names), *others = own.items()
        if other := next((path for path, found in others if set(found) != set(names)), None):
            raise UserError(
                f"{other} has the test sets {', '.join(own[other])}, {first} {', '.join(names)}; name those to compare "
                "on with --annotations"
            )
    ways = [replace(config, levels=(), bridge=False), config] if config.compare else [config]
    models = robustness.models_of(runs, pool=config.pool)
    threads = torch.get_num_threads()
    reader = Reader(config, screen)
    compared: list[robustness.Model] = []
    written: list[dict[str, Any]] = []
    results: dict[str, Evaluated] = {}
    for way in ways:
        for number, run in enumerate(runs, 1):
            if not run.finished and way is ways[0]:
                screen.say(f"note: {run.path} is not finished")
            torch.set_num_threads(config.threads or min(run.settings().threads or threads, os.cpu_count() or threads))
            found = results[str(run.path)] = evaluate_run(run, way, reader, screen)
            if len(runs) > 1:
                name = f"{run.path.name} ({found.title})"
                screen.say(f"{number}/{len(runs)}  {'  '.join([name, *brief_scores(found.scores)])}")
            else:
                show_run(found, screen)
        how = {"levels": list(way.levels) or None, "bridge": way.bridge}
        written += [
            {"run": path, "checkpoint": config.checkpoint, **how, "epoch": each.epoch, "scores": each.scores}
            for path, each in results.items()
        ]
        for model in models:
            answers = {name: [results[source].answers[name] for source in model.sources] for name in found.scores}
            against = (model.name,) if way is not ways[0] else tuple(name + way.how for name in model.against)
            compared.append(replace(model, name=model.name + way.how, answers=answers, against=against))
    whole: dict[str, Any] = {"runs": written} if len(written) > 1 else written[0]
    if draws is not None:
        whole["drift"] = show_robustness(compared, draws, screen, config.figures, config.table)
    if config.json is not None:
        write_json(config.json, nan_to_null(whole))
        screen.say(f"all scores: {config.json}")
    if (path := config.predictions) is not None:
        if found.file_for_each_set and len(found.lines) > 1:  # lines do not say which set they are of
            files = {path.with_name(f"{path.stem}-{name}{path.suffix}"): lines for name, lines in found.lines.items()}
        else:
            files = {path: list(chain.from_iterable(found.lines.values()))}
        for file, lines in files.items():
            write_submission(file, lines)
            screen.say(f"answers: {file}")
    if len(runs) == 1:
        return found.scores
    return {f"{path}: {name}": scores for path, each in results.items() for name, scores in each.scores.items()}


def _check(config: EvalConfig) -> None:
    """Raise ``UserError`` where flags do not go together."""
    check_outputs(config)
    if config.compare and not config.how:
        raise UserError("--compare compares with --bridge or --levels: give one of them")
    if config.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {config.batch_size}")


@dataclass
class Evaluated:
    """The evaluation of one run on each set."""

    title: str
    epoch: int
    file_for_each_set: bool
    scores: dict[str, dict[str, float]]
    queries: dict[str, int]
    untrained: dict[str, int]
    """Distinct words that no training sentence had, by set."""
    answers: dict[str, robustness.Answers]
    lines: dict[str, list[dict[str, Any]]]
    """Of a file of predictions; empty unless one is written."""


class Reader:
    """Reads the data to score on, and keeps it for the next run that reads the same."""

    def __init__(self, config: EvalConfig, screen: Screen) -> None:
        self.config, self.screen = config, screen
        self._settings: TrainConfig | None = None
        self._data: Any = None
        self._bank: Any = None

    def read(self, settings: TrainConfig, run: RunFolder) -> tuple[GroundingData, StoreBank]:
        """Return the data of a run's sets and their features; ``UserError`` where there is nothing to score on."""
        base = BASES[settings.base]
        wanted = with_inputs(settings, self.config, self.config.annotations, run)
        if not wanted.test_sets():
            raise UserError(f"{run.path}: the run has no test sets; name some with --annotations")
        wanted = replace(wanted, **{name: getattr(base.config(), name) for name in NOT_READ_BY})
        if self._settings != wanted:
            originals = self.config.pairs and self.config.resamples > 0
            self._data = self._bank = None  # first, so that there is never room for two
            paths = dict(wanted.test_sets())
            self._data = base.read(wanted, paths, self.screen, originals=originals, for_training=False)
            self._bank = self._data.bank(wanted.storage, wanted.memory, self.screen)
            self._settings = wanted
        return self._data, self._bank


NOT_READ_BY = (
    *("seed", "hero", "base_only", "paper", "init_base", "freeze_base"),
    *("compare", "output", "epochs", "threads", "features_on"),
)
"""Settings in which runs may differ and still read the same data."""


EXAMPLES = 3
"""Queries of which ``--bridge`` shows how it reads them."""


def evaluate_run(run: RunFolder, config: EvalConfig, reader: Reader, screen: Screen) -> Evaluated:
    """Predict and score every set by the model of a run."""
    settings = run.settings()
    data, bank = reader.read(settings, run)
    device = choose_device(config.device)
    keep_freed_memory(device)
    how, levels, bridge = config.checkpoint, config.levels, config.bridge
    loaded = load_run(run, data, screen, checkpoint=how, device=device, bank=bank, levels=levels, bridge=bridge)
    if isinstance(words := getattr(loaded.task.collate, "queries", None), BridgedWords):
        asked = (record.sentence for records in data.sets.values() for record in records)
        for line in words.examples(asked, EXAMPLES):
            screen.say(f"bridge: {line}")
    title = f"{settings.model_name}{config.how}, {config.checkpoint} checkpoint (epoch {loaded.epoch})"
    found = Evaluated(title, loaded.epoch, loaded.task.file_for_each_set, {}, {}, {}, {}, {})
    grounded = {
        name: ground_with_bar(loaded, name, items, config.batch_size, screen) for name, items in loaded.sets.items()
    }

    def unseen(record: Record) -> list[str]:
        return loaded.vocabulary.unseen(data.tokenize(record.sentence))

    for name in (name for name, _ in with_inputs(settings, config, config.annotations, run).test_sets()):
        items = loaded.sets[name]
        found.scores[name] = loaded.task.scores(items, grounded[name])
        found.queries[name] = sum(len(loaded.task.truth(item)) > 0 for item in items)
        words = (word for sentence in data.sentences(name) for word in sentence)
        found.untrained[name] = len(loaded.vocabulary.unseen(words))
        answers = robustness.answers_of([item.record for item in items], grounded[name].moments[:, 0], unseen)
        if (originals := originals_of(name)) in grounded:
            answers = robustness.with_originals(answers, data.sets[originals], grounded[originals].moments[:, 0])
        found.answers[name] = answers
        if config.predictions is not None:
            found.lines[name] = loaded.task.prediction_lines(name, items, grounded[name])
    return found


def show_run(found: Evaluated, screen: Screen) -> None:
    """Show the scores of one run."""
    counts = ("queries", "untrained words")
    rows = {
        (name, str(found.queries[name]), str(found.untrained[name])): scores for name, scores in found.scores.items()
    }
    screen.show(scores_table(("set", *counts), rows, found.title, counts).terminal())
    show_official(found.scores, screen)
