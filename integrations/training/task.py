"""The interface between training and a base: a ``Base`` reads data and builds tasks, a ``Task`` computes and scores."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hero_plugin import HeroModel, wrap_model
from hero_plugin.integrations.data import FeatureStore, Record
from hero_plugin.integrations.data.contexts import Contexts
from hero_plugin.integrations.data.feature_bank import BankCollate, FeatureBank
from hero_plugin.integrations.data.words import Tokenizer, Vocabulary, load_word_vectors, open_tokenizer
from hero_plugin.integrations.scoring.metrics import SCORES, nearest_iou, scores_of
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.tables import Cell, Row, Table
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData, moments_on_clips, open_clips, read_sets
from hero_plugin.integrations.training.queries import Queries, WordQueries, WordSwaps, bridged_words, check_same_table

Batch = dict[str, Tensor]
Scores = dict[str, float]
"""Percent by name: those of ``SCORES``, then the task's own."""


@dataclass
class Prediction:
    """A model's predictions for a batch, still on its device."""

    moments: Tensor
    """(B, K, 2) seconds, best first."""
    scores: Tensor
    """(B, K), descending."""
    relevance: Tensor
    """(B, T) in [0, 1], how relevant each clip is to the query; 0 on padding."""
    saliency: Tensor | None = None
    """(B, T), the base's own clip scores before scaling to [0, 1], for submissions; None for a base without."""


@dataclass
class Grounded:
    """Predictions for a set, in the order of its items."""

    moments: np.ndarray
    """(Q, K, 2) seconds, best first."""
    scores: np.ndarray
    """(Q, K)."""
    relevance: list[np.ndarray]
    """One curve per query, (its clips,) in [0, 1]; empty unless requested."""
    saliency: list[np.ndarray] = field(default_factory=list)
    """The same in the base's own clip scores, where it has any."""


class Task(Protocol):
    """A base, wrapped or plain, with its losses, predictions and scores. Each task has its own type of examples."""

    model: nn.Module
    collate: BankCollate
    scores_clips: bool = False
    """Whether ``scores`` reads the scores of clips, which evaluation otherwise leaves on the device."""
    file_for_each_set: bool = False
    """Whether the predictions of each set go into a file of their own."""
    unused_parameters: Sequence[str] = ()
    """Names of trainable parameters that no loss reaches."""
    following_rows: int = 0
    """Number of following rows of the batch that the model compares each row with in training."""

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return scalars by name: ``loss`` is the total to train on, the others are only reported.

        Run the model once, on the batch's inputs, and draw random numbers only before. Several processes each have
        the inputs of their own rows; the outputs they get back are of all rows.
        """

    def predict(self, model: nn.Module, batch: Batch) -> Prediction:
        """Return the moments of each query, best first, and the scores of its clips."""

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """Return the model's scores of clips, each as logits (B, T) of a distribution over them, and the mask.

        ``outputs`` are the model's for the batch, where it has just been run.
        """

    def prediction_lines(self, name: str, items: Sequence[Any], grounded: Grounded) -> list[dict[str, Any]]:
        """Return the lines of a predictions file for the set ``name``: ids, best moment in seconds, its score.

        Fewer decimals would move a few overlaps across the thresholds, where clips and annotations share their edges.
        """
        return [
            {
                "set": name,
                "query_id": item.record.query_id,
                "video_id": item.record.video_id,
                "sentence": item.record.sentence,
                "moment": [round(float(time), 6) for time in grounded.moments[index, 0]],
                "score": round(float(grounded.scores[index, 0]), 6),
            }
            for index, item in enumerate(items)
        ]

    def truth(self, item: Any) -> Sequence[tuple[float, float]]:
        """Return the annotated moments in seconds; none where the query is not annotated."""
        return item.record.moments

    def overlaps(self, items: Sequence[Any], grounded: Grounded) -> np.ndarray:
        """Return the IoU (annotated queries,) of each query's best moment with the nearest annotated one."""
        truths = [self.truth(item) for item in items]
        annotated = [index for index, truth in enumerate(truths) if len(truth)]
        return nearest_iou(grounded.moments[annotated, 0], [truths[index] for index in annotated])

    def scores(self, items: Sequence[Any], grounded: Grounded) -> Scores:
        """Score a set, in percent: R1@0.3, R1@0.5, R1@0.7 and mIoU, then the task's own scores."""
        return scores_of(self.overlaps(items, grounded))

    def merit(self, scores: Scores) -> float:
        """Return one number for choosing the best epoch, greater being better: the sum of the scores."""
        return sum(scores.values())

    def gauges(self, model: nn.Module) -> dict[str, list[float]]:
        """Return what to log per epoch: the aggregation weight of each level; nothing for a base alone."""
        if not isinstance(model, HeroModel) or not model.config.active:
            return {}
        return {"level_weights": model.level_weights().tolist()}


def with_hero(model: nn.Module, config: TrainConfig) -> nn.Module:
    """Return the model with HERO around it, or as it is where the settings say so."""
    return model if config.base_only else wrap_model(model, config=config.hero, freeze_base=config.freeze_base)


def scores_table(
    labels: Sequence[str], rows: Mapping[Any, Scores], title: str = "", counts: Sequence[str] = ()
) -> Table:
    """Return the usual four scores of some things, each named by its labels; see ``Table``."""
    made = [Row(names, tuple(Cell.of(scores[score]) for score in SCORES)) for names, scores in rows.items()]
    return Table(tuple(labels), SCORES, made, title, counts=tuple(counts))


def brief_scores(metrics: Mapping[str, Scores]) -> list[str]:
    """Return "NAME R1@0.3/R1@0.5/R1@0.7/mIoU" for each set."""
    return [f"{name} " + "/".join(f"{scores[column]:.1f}" for column in SCORES) for name, scores in metrics.items()]


@dataclass
class VectorData(GroundingData):
    """Records, features, and the words of the records as vectors."""

    queries: Queries


@dataclass(frozen=True, slots=True)
class VectorExample:
    """A query, ready for a batch."""

    record: Record
    video: int
    """Row of the feature bank."""
    first: int
    """First clip of the moment it trains on; 0 where the query has none."""
    last: int
    """Last clip, inclusive."""


class VectorCollate(BankCollate):
    """The collate function of bases that are trained on one moment per example.

    Inputs, of the requested rows: video (R, T, D), video_mask (R, T), words (R, L, W), word_mask (R, L) float32; of
    EMB, words (R, L) long, rows of its table. Of all: inside (B, T) float32, 1 for clips of the moment; first, last
    (B,) long, its clips, inclusive; clips (B,) long, how many are real; durations (B,) float32 seconds.
    """

    def __init__(self, bank: FeatureBank, queries: Queries) -> None:
        super().__init__(bank)
        self.queries = queries

    def __call__(self, items: Sequence[VectorExample], rows: Sequence[int] | None = None) -> Batch:
        """Make a batch; see ``BankCollate``."""
        rows = list(range(len(items)) if rows is None else rows)
        clips = np.array([self.clips(item) for item in items])
        videos = [items[row].video for row in rows]
        mask = self.bank.mask(videos, int(clips.max()))
        words, word_mask = self.queries.batch([item.record for item in items])
        first, last = (np.array([getattr(item, name) for item in items]) for name in ("first", "last"))
        places = np.arange(clips.max())
        inside = (places >= first[:, None]) & (places <= last[:, None])
        return {
            "video": self.bank.tensor(videos, mask),  # type: ignore[dict-item]  # becomes a tensor on the device
            "video_mask": torch.from_numpy(mask.astype(np.float32)),
            "words": torch.from_numpy(words[rows]),
            "word_mask": torch.from_numpy(word_mask[rows].astype(np.float32)),
            "inside": torch.from_numpy(inside.astype(np.float32)),
            "first": torch.from_numpy(first),
            "last": torch.from_numpy(last),
            "clips": torch.from_numpy(clips),
            "durations": torch.tensor([item.record.duration for item in items], dtype=torch.float32),
        }


class Base(ABC):
    """All that training, evaluation and the tools ask of a base; its words are vectors of a table, unless it says else.

    Its configs and its data are of types of its own.
    """

    config: type[TrainConfig]
    """The settings of its trainings; ``config.title`` is its published name."""
    data: ClassVar[type[Any]] = VectorData
    """What ``read`` returns: a ``GroundingData``."""
    own_parameters: tuple[str, ...] = ()
    """Parameters of the model that depend on the data, by the base's names: a trained base does not bring them."""
    reads_video_padding: bool = False
    """Whether its answers, as its authors wrote them, move with how far a video is padded: by thousandths of a score,
    and by seconds at times. A batch then holds videos of one length, so that no answer depends on its neighbours."""
    clone: tuple[str, str]
    """The folder that its authors' repository is cloned into, and the module that holds the model."""
    clone_width: int | None = None
    """The one hidden size that its authors' code is written for, or None."""

    def read(
        self,
        config: Any,
        paths: Mapping[str, Path],
        screen: Screen | None = None,
        *,
        originals: bool = False,
        for_training: bool = True,
    ) -> Any:
        """Read and check sets of annotations (see ``read_sets``) and all else but the features themselves.

        Raises:
            DataError: Whatever is wrong with the annotations, all at once; or queries without their file.
            FileNotFoundError: A file is missing.
            UserError: The word table has none of the words.
        """
        store, split = open_clips(config), open_tokenizer(config.tokenizer)
        sets = read_sets(paths, config, store, split, screen, originals, for_training)
        swaps = WordSwaps.of(config, sets, split) if for_training else None
        return self.data(sets, store, split, self.read_words(config, sets, split, swaps, screen), swaps=swaps)

    def read_words(
        self,
        config: Any,
        sets: Mapping[str, Sequence[Record]],
        split: Tokenizer,
        swaps: WordSwaps | None,
        screen: Screen | None,
    ) -> Any:
        """Return the words of the sets, and those that training words give way to, as the base reads them."""
        words = {word for records in sets.values() for record in records for word in split(record.sentence)}
        return self.look_up(config, words.union(swaps.words if swaps else ()), split, "annotations", "--tokenizer")

    def look_up(self, config: Any, words: set[str], split: Tokenizer, of: str, flag: str) -> Any:
        """Return words as vectors of the table ``--words``; ``of`` and ``flag`` are for the message if it has none."""
        vectors = load_word_vectors(config.word_table, words)
        if not len(vectors):
            raise UserError(f"no word of the {of} has a vector in the word table; check --words and {flag}")
        return WordQueries(vectors, split, config.max_words, config.normalize_words)

    def words_only(
        self, config: Any, store: FeatureStore, words: Sequence[str], split: Tokenizer, queries: Any = None
    ) -> Any:
        """Return data without records, for sentences of ``words``; ``queries`` are their features, where files are."""
        queries = queries or self.look_up(config, set(words), split, "queries", "--queries")
        return self.data({}, store, split, queries, words=words)

    def vocabulary(self, config: Any, data: Any) -> Vocabulary:
        """Return the vocabulary of a new run: every word of the data, those of training sentences first."""
        training = list(data.sentences("train"))
        counts = dict(Counter(chain.from_iterable(training)))
        words = dict.fromkeys((*counts, *chain.from_iterable(data.sentences())))
        frequent = sorted(counts, key=lambda word: -counts[word])
        sample = data.queries.sample(frequent) if isinstance(data.queries, WordQueries) else {}
        contexts = Contexts.of(training)
        return Vocabulary(tuple(words), trained=len(counts), counts=counts, contexts=contexts, sample=sample)

    def examples(
        self, config: Any, data: Any, name: str, bank: FeatureBank, vocabulary: Vocabulary, for_training: bool = False
    ) -> list[Any]:
        """Make the task's examples of a set: one per query; for training, one for each of its moments."""
        return [VectorExample(*each) for each in moments_on_clips(data.sets[name], bank, for_training)]

    @abstractmethod
    def new_task(self, config: Any, data: Any, bank: FeatureBank, vocabulary: Vocabulary, device: torch.device) -> Task:
        """Build model and losses, with fresh weights."""

    def load_task(
        self,
        config: Any,
        data: Any,
        bank: FeatureBank,
        known: Vocabulary,
        weights: MutableMapping[str, Tensor],
        device: torch.device,
    ) -> tuple[Task, Vocabulary]:
        """Load a run's model for the queries of ``data``; return it, and the run's vocabulary with their words.

        Raises:
            UserError: Features or word vectors are not of the run's kind.
        """
        task = self.new_task(config, data, bank, known, device)
        self.check_sizes(task.model, weights, data, bank)
        task.model.load_state_dict(weights)
        return task, known.with_words(data.sentences())

    def check_sizes(self, model: nn.Module, weights: Mapping[str, Tensor], data: Any, bank: FeatureBank) -> None:
        """Refuse features or word vectors of other widths than the run's, by its weights and those of a new model.

        Raises:
            UserError: They differ.
        """
        for name, now in model.state_dict().items():
            if name in weights and weights[name].shape != now.shape:
                raise UserError(
                    f"{name} is {tuple(weights[name].shape)} in the run, and {tuple(now.shape)} with features of width "
                    f"{bank.dim} and word vectors of width {data.queries.dim}; give --features and --words of its kind"
                )

    def check_words(self, data: Any, known: Vocabulary, weights: Mapping[str, Tensor]) -> None:
        """Refuse words of another table than the run's, as far as the run, or its weights, can tell.

        Raises:
            UserError: A word has another vector, or the table has no word of the run to compare.
        """
        if isinstance(words := getattr(data, "queries", None), WordQueries):
            if words.source is not None and known.sample.keys().isdisjoint(words.index):
                words = words.others(known.sample)  # those of the queries alone say nothing about the table
            check_same_table(str(words.source), words.index, words.vector, known.sample)

    def bridged(self, trained: Any, data: Any, known: Vocabulary, past: Sequence[Path] = ()) -> Any:
        """Return ``data`` for ``load_task`` to read words that training never had as mixtures of those that it had.

        ``trained`` are the run's settings, ``known`` is its vocabulary, with its counts; ``past`` are the annotations
        that an adapted run had learned from before those in its settings. ``UserError`` where this base cannot read
        words so, or a file that tells about the training is not there.
        """
        return replace(data, queries=bridged_words(data.queries, known))
