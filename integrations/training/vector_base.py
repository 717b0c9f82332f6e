"""A base that reads clips and words as vectors: all that a training needs of it but its model, losses and answers.

A package of yours trains its own model by it: docs/guide/own_package.md.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hero_plugin import HeroModel
from hero_plugin.integrations.data.contexts import Contexts
from hero_plugin.integrations.data.feature_bank import BankCollate, FeatureBank
from hero_plugin.integrations.data.features import FeatureStore
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Tokenizer, Vocabulary, open_tokenizer
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData, moments_on_clips, open_clips, read_sets
from hero_plugin.integrations.training.queries import (
    Queries,
    WordQueries,
    bridged_words,
    check_same_table,
    sample_of,
    words_of_table,
    words_to_train_on,
)
from hero_plugin.integrations.training.task import Base, Batch, Prediction, Task, with_hero
from hero_plugin.tensors import at_least_float32


@dataclass(frozen=True)
class VectorTrainConfig(TrainConfig):
    """The settings of such a training; a base's own names it by ``base`` and ``title`` and adds its model's sizes."""

    required = (*TrainConfig.required, "words")

    max_words: int = 32
    """Longer queries are cut."""
    normalize_features: bool = False
    """Scale each clip's features to length 1, each feature folder's for itself."""
    normalize_words: bool = False
    """Scale each word's vector to length 1."""

    def mistakes(self) -> list[str]:
        """Return what is wrong with the settings, one message each."""
        return super().mistakes() + too_small(self, max_words=1)


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
    """The collate function of such a base.

    Inputs, of the requested rows: video (R, T, D) float32, video_mask (R, T), words (R, L, W), word_mask (R, L)
    float32. Of all: inside (B, T) float32, 1 for clips of the moment; first, last (B,) long, its clips, inclusive;
    clips (B,) long, how many are real; durations (B,) float32 seconds.
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


class VectorTask(Task):
    """The losses and answers of such a base; a base's own implements ``losses`` and ``predict``.

    Args:
        model: The model, plain or wrapped.
        collate: Makes its batches.
        config: The settings of its training.
    """

    def __init__(self, model: nn.Module, collate: VectorCollate, config: Any) -> None:
        self.model, self.collate, self.config = model, collate, config

    @staticmethod
    def seconds(batch: Batch, first: Tensor, last: Tensor) -> Tensor:
        """Convert first and last clips (B, K), inclusive, to moments (B, K, 2) in seconds."""
        length = (batch["durations"] / batch["clips"])[:, None, None]
        return torch.stack([first, last + 1], dim=-1) * length

    @staticmethod
    def hero_loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted sum of HERO's two losses of the last forward, and each; nothing for a plain base.

        Of the batch it reads ``inside`` alone, (B, T) at the length of the clips that HERO meets: give a base that
        pools its clips ``{**batch, "inside": pooled}``.
        """
        if not isinstance(model, HeroModel):
            return {}
        _expect_clips(model.relevance, batch["inside"], "give hero_loss an `inside` of its clips, and override")
        weighted: Any = model.weighted_hero_loss(batch["inside"])
        losses = model.hero_losses()
        return {"loss": weighted, **losses} if losses else {}

    @staticmethod
    def relevance(model: nn.Module, batch: Batch, own: Tensor | None = None) -> Tensor:
        """Return how relevant each clip is, (B, T) in [0, 1]: as HERO says, else by the base's own logits, if any.

        For a base that keeps its clips: one that pools them makes (B, T) of ``model.relevance`` itself.
        """
        logits = getattr(model, "relevance", None) if isinstance(model, HeroModel) else own
        logits = own if logits is None else logits
        mask = batch["video_mask"]
        if logits is None:
            return torch.zeros_like(mask)
        _expect_clips(logits, mask, "override")
        return at_least_float32(logits).sigmoid() * mask

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """Return the logits (B, T) of the clips' relevance that HERO gives; nothing of a plain base."""
        if outputs is None:
            self.predict(model, batch)
        found = model.relevance if isinstance(model, HeroModel) else None
        return [] if found is None else [at_least_float32(found)], batch["video_mask"]

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> Prediction:
        """Return the moments of each query, best first, and the relevance of its clips."""


class WordVectorsBase(Base):
    """What bases share that get words as vectors: a vocabulary only serves to tell new words from trained ones."""

    data = VectorData

    def words_only(
        self, config: Any, store: FeatureStore, words: Sequence[str], split: Tokenizer, queries: Queries | None = None
    ) -> Any:
        """Return data without records, for sentences of ``words``."""
        queries = queries or words_of_table(config, set(words), split, "queries", "--queries")
        return self.data({}, store, split, queries)

    def vocabulary(self, config: Any, data: Any) -> Vocabulary:
        """Return every word of the data, those of training sentences first."""
        training = list(data.sentences("train"))
        counts = dict(Counter(chain.from_iterable(training)))
        words = dict.fromkeys((*counts, *chain.from_iterable(data.sentences())))
        sample = sample_of(data.queries, sorted(counts, key=lambda word: -counts[word]))
        return Vocabulary(
            tuple(words), trained=len(counts), counts=counts, contexts=Contexts.of(training), sample=sample
        )

    def check_words(self, data: Any, known: Vocabulary, weights: Mapping[str, Tensor]) -> None:
        """Compare the vectors of words of the run, of which it has kept a few numbers."""
        if isinstance(data.queries, WordQueries):
            check_same_table(str(data.queries.source), data.queries.index, data.queries.vector, known.sample)

    def bridged(self, trained: Any, data: Any, known: Vocabulary) -> Any:
        """Return ``data`` with words that are bridged to the run's."""
        return replace(data, queries=bridged_words(data.queries, known))


class VectorBase(WordVectorsBase):
    """A base that reads clips and words as vectors; a base's own names ``config`` and ``task``, and makes the model."""

    task: ClassVar[type[VectorTask]]

    @abstractmethod
    def make_model(self, config: Any, video_dim: int, word_dim: int) -> nn.Module:
        """Return the plain model with fresh weights, for features and word vectors of these widths."""

    def read(
        self, config: Any, paths: Mapping[str, Path], screen: Screen | None = None, originals: bool = False
    ) -> Any:
        """Read and check the sets, and the vectors of their words."""
        store = open_clips(config)
        split = open_tokenizer(config.tokenizer)
        sets = read_sets(paths, config, store, split, screen, originals)
        queries, swaps = words_to_train_on(config, sets, split)
        return self.data(sets, store, split, queries, swaps=swaps)

    def examples(
        self, config: Any, data: Any, name: str, bank: FeatureBank, vocabulary: Vocabulary, for_training: bool = False
    ) -> list[Any]:
        """Make one example per query; for training, one for each of its moments."""
        return [VectorExample(*each) for each in moments_on_clips(data.sets[name], bank, for_training)]

    def new_task(self, config: Any, data: Any, bank: FeatureBank, vocabulary: Vocabulary, device: torch.device) -> Task:
        """Build the model with fresh weights, wrap it unless it is to stay plain, and make its task."""
        model = with_hero(self.make_model(config, bank.dim, data.queries.dim), config)
        return self.task(model.to(device), VectorCollate(bank, data.queries), config)

    def load_task(
        self,
        config: Any,
        data: Any,
        bank: FeatureBank,
        known: Vocabulary,
        weights: MutableMapping[str, Tensor],
        device: torch.device,
        sentences: Iterable[Sequence[str]] | None = None,
    ) -> tuple[Task, Vocabulary]:
        """Load a run's model for the queries of ``data``."""
        task = self.new_task(config, data, bank, known, device)
        for name, now in task.model.state_dict().items():
            if name in weights and weights[name].shape != now.shape:
                raise UserError(
                    f"{name} is {tuple(weights[name].shape)} in the run, and {tuple(now.shape)} with features of width "
                    f"{bank.dim} and word vectors of width {data.queries.dim}; give --features and --words of its kind"
                )
        task.model.load_state_dict(weights)
        return task, known.with_words(data.sentences() if sentences is None else sentences)


def _expect_clips(logits: Tensor | None, clips: Tensor, then: str) -> None:
    if logits is not None and logits.shape != clips.shape:
        raise UserError(
            f"relevance is {tuple(logits.shape)} for clips {tuple(clips.shape)}: a base that pools its clips must "
            f"{then} its task's `relevance` and `clip_logits`, to be of the video's clips"
        )
