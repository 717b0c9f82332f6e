"""What a training asks of a base: its data, the words of their queries, examples, batches, and its ``Task``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hero_plugin.integrations.data import FeatureStore, Record
from hero_plugin.integrations.data.contexts import Contexts
from hero_plugin.integrations.data.feature_bank import BankCollate, FeatureBank
from hero_plugin.integrations.data.words import Tokenizer, Vocabulary, load_word_vectors, open_tokenizer
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData, moments_on_clips, open_clips, read_sets
from hero_plugin.integrations.training.queries import Queries, WordQueries, WordSwaps, bridged_words, check_same_table
from hero_plugin.integrations.training.task import Batch, Task


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
        self, config: Any, paths: Mapping[str, Path], screen: Screen | None = None, originals: bool = False
    ) -> Any:
        """Read and check sets of annotations (see ``read_sets``) and all else but the features themselves.

        Raises:
            DataError: Whatever is wrong with the annotations, all at once; or queries without their file.
            FileNotFoundError: A file is missing.
            UserError: The word table has none of the words.
        """
        store, split = open_clips(config), open_tokenizer(config.tokenizer)
        sets = read_sets(paths, config, store, split, screen, originals)
        swaps = WordSwaps.of(config, sets, split)
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
        return WordQueries(vectors, split, config.max_words, config.normalize_words, config.word_table)

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
            UserError: A word has another vector.
        """
        if isinstance(words := getattr(data, "queries", None), WordQueries):
            check_same_table(str(words.source), words.index, words.vector, known.sample)

    def bridged(self, trained: Any, data: Any, known: Vocabulary) -> Any:
        """Return ``data`` for ``load_task`` to read words that training never had as mixtures of those that it had.

        ``trained`` are the run's settings, ``known`` is its vocabulary, with its counts.

        Raises:
            UserError: This base cannot read words so, or a file that tells about the training is not there.
        """
        return replace(data, queries=bridged_words(data.queries, known))
