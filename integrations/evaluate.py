"""``hero-plugin eval``: any run on any annotations, words that it never saw included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.batches import Example
from hero_plugin.integrations.checkpoints import load_checkpoint
from hero_plugin.integrations.console import Screen, score_cells, scores_table
from hero_plugin.integrations.emb_data import EmbData, read_data
from hero_plugin.integrations.emb_task import EmbTask
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.feature_bank import FeatureBank
from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.grounding import Grounded, ground, score
from hero_plugin.integrations.precision import choose_device
from hero_plugin.integrations.run_folder import RunFolder
from hero_plugin.integrations.train_config import TrainConfig, config_from
from hero_plugin.integrations.train_emb import build_task
from hero_plugin.integrations.vocabulary import Vocabulary

WORD_TABLE = "embedding_net.word_emb.glove_vec"


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
    durations: Path | None = None
    """Lengths of the videos, for annotations that do not hold them."""
    on_broken: OnBroken | None = None
    """Queries that cannot be used: error or drop; as in the run unless given."""
    json: Path | None = None
    """Write the scores here."""
    predictions: Path | None = None
    """Write each query's moment here, one JSON line a query."""
    batch_size: int = 64
    """Queries at once."""
    device: str = "auto"
    """auto takes CUDA where there is one."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""


@dataclass
class LoadedRun:
    """A run that can ground: its model, and the sets it was loaded for."""

    task: EmbTask
    config: TrainConfig
    vocabulary: Vocabulary
    sets: dict[str, list[Example]]
    epoch: int


def main(config: EvalConfig, screen: Screen | None = None) -> dict[str, dict[str, float]]:
    """Score, print and write. Returns the scores by set."""
    screen = screen or Screen()
    run = RunFolder.open(config.run)
    settings = config_from(run.config(), str(run.config_file))
    if config.threads:
        torch.set_num_threads(config.threads)
    asked = TrainConfig(annotations_test=config.annotations).test_sets() or settings.test_sets()
    if not asked:
        raise UserError(f"{config.run}: the run has no test sets; name some with --annotations")
    data = read_data(
        dict(asked),
        features=config.features or settings.features,
        words=config.words or settings.words,
        config=replace(settings, on_broken=config.on_broken or settings.on_broken),
        durations=config.durations or settings.durations,
        screen=screen,
    )
    loaded = load_run(run, data, screen, checkpoint=config.checkpoint, device=choose_device(config.device))
    scores, rows = {}, []
    predicted: list[dict[str, Any]] = []
    for name, items in loaded.sets.items():
        grounded = ground_with_bar(loaded, name, items, config.batch_size, screen)
        scores[name] = score(loaded.task, items, grounded)
        unseen = loaded.vocabulary.unseen(word for words in data.sentences(name) for word in words)
        rows.append((name, str(len(items)), str(len(unseen)), *score_cells(scores[name])))
        predicted.extend({"set": name, **line} for line in prediction_lines(items, grounded))
    title = f"{'EMB' if settings.base_only else 'HERO-EMB'}, {config.checkpoint} checkpoint (epoch {loaded.epoch})"
    screen.show(scores_table(rows, ("set", "queries", "untrained words"), title))
    if config.json is not None:
        result = {"run": str(config.run), "checkpoint": config.checkpoint, "epoch": loaded.epoch}
        with atomic_write(config.json) as stream:
            stream.write(json.dumps({**result, "scores": scores}, indent=2) + "\n")
    if config.predictions is not None:
        with atomic_write(config.predictions) as stream:
            stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in predicted)
    return scores


def load_run(
    run: RunFolder,
    data: EmbData,
    screen: Screen,
    *,
    checkpoint: str = "best",
    device: torch.device | str = "cpu",
    bank: FeatureBank | None = None,
) -> LoadedRun:
    """A run's model with its vocabulary extended to the words of ``data``, and ``data`` as its examples.

    Old words keep the vectors of the checkpoint; new ones get theirs from ``data.vectors``, scaled alike.
    """
    if checkpoint not in ("best", "last"):
        raise UserError(f"--checkpoint must be best or last, got {checkpoint!r}")
    settings = config_from(run.config(), str(run.config_file))
    state = load_checkpoint(run.best if checkpoint == "best" else run.last)
    known = Vocabulary.from_json(run.vocabulary())
    vocabulary = known.extended(data.sentences(), data.vectors)
    bank = bank or data.bank(settings.storage, settings.memory, screen)
    new = Vocabulary(vocabulary.words[len(known) :], known.scale)
    weights = _with_words(state["model"], new, data)
    check_widths(run, weights, bank)
    name = _word_table(weights)
    task = build_task(settings, bank, weights[name].numpy(), torch.device(device))
    task.model.load_state_dict(weights)
    task.model.eval()
    max_words = task.settings.max_pos_len
    sets = {name: data.examples(name, bank, vocabulary, max_words) for name in data.sets}
    epoch = state["epoch"] if "epoch" in state else state["progress"]["epoch"]
    return LoadedRun(task, settings, vocabulary, sets, epoch)


def ground_with_bar(
    loaded: LoadedRun, name: str, items: Sequence[Example], batch_size: int, screen: Screen
) -> Grounded:
    total, done = -(-len(items) // batch_size), 0
    with screen.working(f"scoring {name}", total) as progress:

        def after_batch() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        return ground(loaded.task, items, batch_size, amp=loaded.config.amp, after_batch=after_batch)


def prediction_lines(items: Sequence[Example], grounded: Grounded) -> list[dict[str, Any]]:
    """One dict a query: ids, the moment in seconds, and the probability of its boundaries."""
    return [
        {
            "query_id": item.record.query_id,
            "video_id": item.record.video_id,
            "sentence": item.record.sentence,
            "moment": [round(float(time), 3) for time in grounded.moments[index, 0]],
            "score": round(float(grounded.scores[index, 0]), 6),
        }
        for index, item in enumerate(items)
    ]


def check_widths(run: RunFolder, weights: Mapping[str, torch.Tensor], bank: FeatureBank) -> None:
    """Raise ``UserError`` where the features are not as wide as those that the run was trained on."""
    name = next(key for key in weights if key.endswith("video_affine.linear.conv1d.weight"))
    width = weights[name].shape[1]
    if width != bank.dim:
        raise UserError(
            f"{run.path}: trained on features of width {width}, these have {bank.dim}; give --features of the same kind"
        )


def _with_words(weights: Mapping[str, torch.Tensor], new: Vocabulary, data: EmbData) -> dict[str, torch.Tensor]:
    name = _word_table(weights)
    table = weights[name]
    if not len(new):
        return dict(weights)
    if table.shape[1] != data.vectors.dim:
        raise UserError(
            f"the run's word vectors have {table.shape[1]} numbers, this word table {data.vectors.dim}; "
            "give --words the table that the run was trained with"
        )
    added = torch.from_numpy(new.table(data.vectors))
    return {**weights, name: torch.cat([table, added])}


def _word_table(weights: Mapping[str, torch.Tensor]) -> str:
    return next(key for key in weights if key.endswith(WORD_TABLE))
