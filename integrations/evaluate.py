"""``hero-plugin eval``: any run on any annotations, words that it never saw included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.bases import BASES, config_from
from hero_plugin.integrations.checkpoints import load_checkpoint
from hero_plugin.integrations.console import Screen, score_cells, scores_table
from hero_plugin.integrations.data import GroundingData
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.feature_bank import FeatureBank
from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.grounding import Grounded, ground
from hero_plugin.integrations.precision import choose_device
from hero_plugin.integrations.run_folder import RunFolder
from hero_plugin.integrations.submissions import write_submission
from hero_plugin.integrations.task import Task
from hero_plugin.integrations.train_config import TrainConfig
from hero_plugin.integrations.training import show_official
from hero_plugin.integrations.vocabulary import Vocabulary


@dataclass
class EvalConfig:
    """Score a run, base or HERO. Words outside its vocabulary get their vectors from the word table."""

    run: Path
    """Folder of the run."""
    annotations: tuple[str, ...] = ()
    """Annotations to score, as PATH or NAME=PATH; none: the run's own test sets."""
    checkpoint: str = "best"
    """best or last."""
    features: tuple[Path, ...] = ()
    """Other features than the run's."""
    words: Path | None = None
    """Another copy of the word table than the run's (of the same vectors)."""
    query_features: Path | None = None
    """Another folder of queries' features than the run's (DETRs)."""
    durations: Path | None = None
    """Lengths of the videos, for annotations that do not hold them."""
    on_broken: OnBroken | None = None
    """Queries that cannot be used: error or drop; as in the run unless given."""
    json: Path | None = None
    """Write the scores here."""
    predictions: Path | None = None
    """Write each query's moment here, one JSON line a query. Of a DETR, a submission in QVHighlights' form; of several
    sets, one each, with the set's name in the file's."""
    batch_size: int = 64
    """Queries at once."""
    device: str = "auto"
    """auto takes CUDA where there is one."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""


@dataclass
class LoadedRun:
    """A run that can ground: its model, and the sets it was loaded for."""

    task: Task
    config: TrainConfig
    vocabulary: Vocabulary
    sets: dict[str, list[Any]]
    epoch: int


def main(config: EvalConfig, screen: Screen | None = None) -> dict[str, dict[str, float]]:
    """Score, print and write. Returns the scores by set."""
    screen = screen or Screen()
    run = RunFolder.open(config.run)
    settings = config_from(run.config(), str(run.config_file))
    if config.threads:
        torch.set_num_threads(config.threads)
    asked = with_inputs(settings, config)
    if not asked.test_sets():
        raise UserError(f"{config.run}: the run has no test sets; name some with --annotations")
    data = BASES[settings.base].read(asked, dict(asked.test_sets()), screen)
    loaded = load_run(run, data, screen, checkpoint=config.checkpoint, device=choose_device(config.device))
    scores, rows = {}, []
    predicted: dict[str, list[dict[str, Any]]] = {}
    for name, items in loaded.sets.items():
        grounded = ground_with_bar(loaded, name, items, config.batch_size, screen)
        scores[name] = loaded.task.scores(items, grounded)
        unseen = loaded.vocabulary.unseen(word for words in data.sentences(name) for word in words)
        rows.append((name, str(len(items)), str(len(unseen)), *score_cells(scores[name])))
        predicted[name] = loaded.task.prediction_lines(name, items, grounded)
    title = f"{settings.model_name}, {config.checkpoint} checkpoint (epoch {loaded.epoch})"
    screen.show(scores_table(rows, ("set", "queries", "untrained words"), title))
    show_official(scores, screen)
    if config.json is not None:
        result = {"run": str(config.run), "checkpoint": config.checkpoint, "epoch": loaded.epoch}
        with atomic_write(config.json) as stream:
            stream.write(json.dumps({**result, "scores": scores}, indent=2) + "\n")
    if config.predictions is not None:
        for path, lines in prediction_files(loaded.task, config.predictions, predicted).items():
            write_submission(path, lines)
    return scores


def with_inputs(settings: TrainConfig, config: EvalConfig) -> TrainConfig:
    """The run's settings, with whatever else the evaluation is told to read."""
    given = {name: getattr(config, name) for name in ("features", "words", "query_features", "durations", "on_broken")}
    changes = {name: value for name, value in given.items() if value}
    if config.annotations:
        changes["annotations_test"] = config.annotations
    if not hasattr(settings, "query_features") and config.query_features:
        raise UserError(f"--query-features is for the DETRs, {config.run} is a run of {settings.title}")
    if getattr(settings, "query_features", None) and config.words:
        raise UserError(f"{config.run} was trained on queries' features; give --query-features, not --words")
    return replace(settings, **changes)


def load_run(
    run: RunFolder,
    data: GroundingData,
    screen: Screen,
    *,
    checkpoint: str = "best",
    device: torch.device | str = "cpu",
    bank: FeatureBank | None = None,
) -> LoadedRun:
    """A run's model for the words of ``data``, and ``data`` as its examples.

    Raises:
        UserError: features or word vectors are not of the run's kind, or ``data`` is not of its base's.
    """
    if checkpoint not in ("best", "last"):
        raise UserError(f"--checkpoint must be best or last, got {checkpoint!r}")
    settings = config_from(run.config(), str(run.config_file))
    base = BASES[settings.base]
    if not isinstance(data, base.data):
        raise UserError(f"{run.path}: a run of {settings.title} cannot read the queries of this base")
    state = load_checkpoint(run.best if checkpoint == "best" else run.last)
    bank = bank or data.bank(settings.storage, settings.memory, screen)
    known = Vocabulary.from_json(run.vocabulary())
    try:
        task, vocabulary = base.trained(settings, data, bank, known, state["model"], torch.device(device))
    except UserError as error:
        raise UserError(f"{run.path}: {error}") from error
    task.model.eval()
    sets = {name: base.examples(settings, data, name, bank, vocabulary) for name in data.sets}
    epoch = state["epoch"] if "epoch" in state else state["progress"]["epoch"]
    return LoadedRun(task, settings, vocabulary, sets, epoch)


def ground_with_bar(loaded: LoadedRun, name: str, items: Sequence[Any], batch_size: int, screen: Screen) -> Grounded:
    total, done = -(-len(items) // batch_size), 0
    with screen.working(f"scoring {name}", total) as progress:

        def after_batch() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        wanted = loaded.task.scores_clips
        return ground(loaded.task, items, batch_size, amp=loaded.config.amp, clips=wanted, after_batch=after_batch)


def prediction_files(
    task: Task, path: Path, predicted: Mapping[str, list[dict[str, Any]]]
) -> dict[Path, list[dict[str, Any]]]:
    """What goes into which file: all sets into one, or one each where the lines do not say which set they are of."""
    if task.file_for_each_set and len(predicted) > 1:
        return {path.with_name(f"{path.stem}-{name}{path.suffix}"): lines for name, lines in predicted.items()}
    return {path: list(chain.from_iterable(predicted.values()))}
