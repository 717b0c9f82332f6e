"""A finished run, loaded to predict any annotations."""

import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hero_plugin import HeroModel
from hero_plugin.integrations.data import Record, read_annotations
from hero_plugin.integrations.data.feature_bank import ArrayBank, BankCollate, FeatureBank, StoreBank
from hero_plugin.integrations.data.features import FeatureStore, Source, sample_clips
from hero_plugin.integrations.data.words import Vocabulary, open_tokenizer
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.batching import predict_set, to_device
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.config import RunInputs, TrainConfig, has_duplicates
from hero_plugin.integrations.training.dataset import GroundingData, check_records, open_clips
from hero_plugin.integrations.training.distributed import Amp, autocast, choose_device
from hero_plugin.integrations.training.queries import QueryFiles
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Batch, Grounded, Prediction, Task


@dataclass
class LoadedRun:
    """A run's model, and the sets it was loaded for."""

    task: Task
    config: TrainConfig
    vocabulary: Vocabulary
    sets: dict[str, list[Any]]
    epoch: int


def with_inputs(settings: TrainConfig, config: RunInputs, annotations: tuple[str, ...], run: RunFolder) -> TrainConfig:
    """Return the run's settings on other test sets, if any are given, and the features and words that flags name.

    Raises:
        UserError: Queries come to this run in another way, or two sets have the same name.
    """
    given = {name: getattr(config, name) for name in ("features", "words", "query_features", "durations", "on_broken")}
    changes = {name: value for name, value in given.items() if value}
    if not hasattr(settings, "query_features") and config.query_features:
        raise UserError(f"--query-features is for the DETRs, {run.path} is a run of {settings.title}")
    if getattr(settings, "query_features", None) and config.words:
        raise UserError(f"{run.path} was trained on queries' features; give --query-features, not --words")
    names, trained = ([path.name for path in paths] for paths in (config.features or (), settings.features))
    if names != trained and sorted(names) == sorted(trained):
        raise UserError(f"{run.path} was trained on --features in another order: {' '.join(trained)}")
    found = replace(settings, **changes, annotations_test=annotations or settings.annotations_test)
    if has_duplicates(names := [name for name, _ in found.test_sets()]):
        raise UserError(f"sets need different names, got {', '.join(names)}; give them as NAME=PATH")
    run.check_origins(found)
    return found


def load_run(
    run: RunFolder,
    data: GroundingData,
    screen: Screen,
    *,
    checkpoint: str = "best",
    device: torch.device | str = "cpu",
    bank: StoreBank | None = None,
    levels: Sequence[int] = (),
    bridge: bool = False,
) -> LoadedRun:
    """Load a run's model for the words of ``data``, and ``data`` as its examples.

    ``levels`` and ``bridge`` as in ``AnswerInputs``. ``UserError`` where features or word vectors are not of the run's
    kind, ``data`` is not of its base's, or the model has no such levels.
    """
    if checkpoint not in ("best", "last"):
        raise UserError(f"--checkpoint must be best or last, got {checkpoint!r}")
    settings = run.settings()
    base = BASES[settings.base]
    if not isinstance(data, base.data):
        raise UserError(f"{run.path}: a run of {settings.title} cannot read the queries of this base")
    bank = bank or data.bank(settings.storage, settings.memory, screen)
    bank.settle(torch.device(device), settings.features_on)
    path = run.best if checkpoint == "best" else run.last
    task, vocabulary, epoch = load_model(run, path, data, bank, device, levels=levels, bridge=bridge)
    sets = {name: base.examples(settings, data, name, bank, vocabulary) for name in data.sets}
    return LoadedRun(task, settings, vocabulary, sets, epoch)


def load_model(
    run: RunFolder,
    checkpoint: Path,
    data: GroundingData,
    bank: FeatureBank,
    device: torch.device | str,
    *,
    settings: TrainConfig | None = None,
    levels: Sequence[int] = (),
    bridge: bool = False,
) -> tuple[Task, Vocabulary, int]:
    """Load a checkpoint of a run, in eval mode, its words, and its epoch; the other arguments as ``Base.load_task``'s.

    Raises:
        UserError: As ``load_run``; the message names the run.
    """
    trained = run.settings()
    run.check_widths(data.store.widths)
    settings = settings or trained
    state, known = load_checkpoint(checkpoint), Vocabulary.from_json(run.vocabulary())
    try:
        base = BASES[settings.base]
        if bridge and not known.contexts:
            known = known.counted(data.tokenize(record.sentence) for record in learned_records(run, trained))
        base.check_words(data, known, state["model"])
        data = base.bridged(trained, data, known, learned_before(run)) if bridge else data
        task, vocabulary = base.load_task(settings, data, bank, known, state["model"], torch.device(device))
        answer_with(task.model, levels)
    except UserError as error:
        raise UserError(f"{run.path}: {error}") from error
    task.model.eval()
    return task, vocabulary, state["epoch"] if "epoch" in state else state["progress"]["epoch"]


def learned_before(run: RunFolder) -> list[Path]:
    """Return the annotations that an adapted run had learned from before those in its settings."""
    return [Path(path) for path in run.config().get("adapted", {}).get("past", [])]


def learned_records(run: RunFolder, trained: TrainConfig) -> list[Record]:
    """Return all queries that a run of an earlier version has learned from, which did not keep their counts.

    Raises:
        UserError: Their files are not there, or cannot be read.
    """
    assert trained.annotations_train is not None  # required of every run
    found: list[Record] = []
    for path in (*learned_before(run), trained.annotations_train):
        try:
            found += read_annotations(path, durations=trained.durations, on_broken="drop")
        except (FileNotFoundError, DataError) as error:
            raise UserError(f"--bridge counts the words of an older run's training queries, but {error}") from error
    return found


def answer_with(model: nn.Module, levels: Sequence[int]) -> None:
    """Let these levels of a model answer, where any are given; ``UserError`` where it has no such levels."""
    if not levels:
        return
    if not isinstance(model, HeroModel):
        raise UserError("--levels is for HERO's levels, and this is a run of the plain base")
    try:
        model.keep_level(*levels)
    except ValueError as error:
        raise UserError(f"--levels: {error}") from error


def ground_with_bar(loaded: LoadedRun, name: str, items: Sequence[Any], batch_size: int, screen: Screen) -> Grounded:
    """Predict a set of a loaded run, with a progress bar."""
    total, done = -(-len(items) // batch_size), count(1)
    task, amp = loaded.task, loaded.config.amp
    with screen.working(f"scoring {name}", total) as progress:
        return predict_set(
            task, items, batch_size, amp=amp, clips=task.scores_clips, after_batch=lambda: progress(next(done), total)
        )


def data_of(
    settings: TrainConfig, records: Sequence[Record], sources: Source | Sequence[Source] | None = None
) -> GroundingData:
    """Return records as the set ``records``, read as a run's settings say, from other features if any are given.

    Raises:
        DataError: A query has no word, or its video no features.
    """
    store, split = open_clips(settings, sources), open_tokenizer(settings.tokenizer)
    check_records(records, store, split, "records")
    words = [word for record in records for word in split(record.sentence)]
    queries = QueryFiles(settings, records) if getattr(settings, "query_features", None) else None
    data = BASES[settings.base].words_only(settings, store, words, split, queries)
    data.sets = {"records": list(records)}
    return data


def answer(
    run: str | os.PathLike[str],
    records: Sequence[Record],
    features: Source | Sequence[Source],
    *,
    checkpoint: str = "best",
    levels: Sequence[int] = (),
    bridge: bool = False,
    device: str = "auto",
    batch_size: int = 64,
) -> Grounded:
    """Answer queries by a finished run.

    Args:
        run: Folder of the run.
        records: The queries, with the lengths of their videos; moments are not read.
        features: As the run's, in the same order if there are several: folders, files, or arrays by video.
        checkpoint: best or last.
        levels: The levels of HERO that answer, in place of those that the run chose.
        bridge: Read words that training never had as mixtures of those that it had.
        device: auto takes CUDA where there is one.
        batch_size: Queries at once.

    Returns:
        Moments (Q, K, 2) in seconds, best first, their scores (Q, K), and per query the relevance of each clip.

    Raises:
        DataError: A query has no word, or its video no features.
        UserError: The features are not of the run's kind, or the run reads a file of vectors for each query.

    Example:
        >>> record = Record("q1", "kitchen", "a person opens a box", (), duration=31.0)
        >>> start, end = answer("runs/hero", [record], {"kitchen": np.load("kitchen.npy")}).moments[0, 0]
    """
    opened = RunFolder.open(Path(run))
    settings = opened.settings()
    if getattr(settings, "query_features", None):
        raise UserError(f"{run}: reads a file of vectors for each query; hero-plugin predict answers those")
    sources = [features] if isinstance(features, str | os.PathLike | Mapping) else list(features)
    if paths := tuple(Path(each) for each in sources if not isinstance(each, Mapping)):
        opened.check_origins(replace(settings, features=paths))
    data = data_of(settings, records, sources)
    chosen, quiet = choose_device(device), Screen(quiet=True)
    loaded = load_run(opened, data, quiet, checkpoint=checkpoint, device=chosen, levels=levels, bridge=bridge)
    return predict_set(loaded.task, loaded.sets["records"], batch_size, amp=settings.amp, clips=True)


@dataclass
class RunPredictor:
    """A run's model for the words of its queries, and how examples of records are made."""

    task: Task
    settings: TrainConfig
    data: GroundingData
    vocabulary: Vocabulary
    device: torch.device
    amp: Amp

    @classmethod
    def load(
        cls,
        run: RunFolder,
        settings: TrainConfig,
        store: FeatureStore,
        words: Sequence[str],
        device: torch.device,
        *,
        weights: Path,
        queries: Any = None,
        levels: Sequence[int] = (),
        bridge: bool = False,
        amp: Amp | None = None,
    ) -> "RunPredictor":
        """Load the model of a run, from the checkpoint ``weights``, for sentences of the given words.

        ``settings`` are the run's, with the files that are read now; of ``store`` only the width is asked; ``queries``
        are their vectors, for a base that reads a file for each; ``levels`` and ``bridge`` as in ``AnswerInputs``.
        ``UserError`` where features or word vectors are not of the run's kind, or no word has a vector.
        """
        split = open_tokenizer(settings.tokenizer)
        data: GroundingData = BASES[settings.base].words_only(settings, store, words, split, queries)
        # Only the words of the queries are known yet: their records and videos come later.
        bank = ArrayBank({}, store.dim)
        task, vocabulary, _ = load_model(
            run, weights, data, bank, device, settings=settings, levels=levels, bridge=bridge
        )
        return cls(task, settings, data, vocabulary, device, amp or settings.amp)

    def shorten(self, array: np.ndarray) -> np.ndarray:
        """Return a video's features (clips, dim) as short as the model gets them."""
        return sample_clips(array, max_clips=self.settings.max_clips, pooling=self.settings.clip_pooling)

    def examples(self, records: list[Record], bank: FeatureBank) -> list[Any]:
        """Return examples of records whose videos are in ``bank``, in the same order."""
        window = copy(self.data)
        window.sets = {"window": records}
        return BASES[self.settings.base].examples(self.settings, window, "window", bank, self.vocabulary)

    def collate(self, bank: FeatureBank) -> BankCollate:
        """Return what makes batches of examples whose videos are in ``bank``."""
        other = copy(self.task.collate)
        other.bank = bank
        return other

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Prediction:
        """Return a batch's answers, still on the device."""
        with autocast(self.amp, self.device):
            return self.task.predict(self.task.model, to_device(batch, self.device))
