"""The DETRs as bases: how their trainings and evaluations are assembled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin import wrap_criterion, wrap_model
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.detr_batches import DetrCollate, DetrExample, make_detr_examples
from hero_plugin.integrations.detr_config import DetrTrainConfig
from hero_plugin.integrations.detr_data import DetrData, read_detr_data
from hero_plugin.integrations.detr_task import DetrTask
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.feature_bank import FeatureBank
from hero_plugin.integrations.features import FeatureStore
from hero_plugin.integrations.query_features import Queries, WordQueries
from hero_plugin.integrations.settings import ConfigError
from hero_plugin.integrations.vocabulary import Vocabulary
from hero_plugin.integrations.words import load_word_vectors

ENDPOINTS = 2
"""Numbers that the collate function appends to a clip's features."""


@dataclass(frozen=True)
class DetrBase:
    """A DETR: it takes words as vectors, so its vocabulary only serves to distinguish new words from trained ones.

    Args:
        config: the settings of its trainings.
        described: what describes a model of it.
        builder: makes the model and its criterion of ``described``.
        clone: as in ``bases.Base``, like the others.
    """

    config: type[DetrTrainConfig]
    described: type[DETRConfig]
    builder: Callable[[Any], tuple[nn.Module, nn.Module]]
    clone: tuple[str, str]
    clone_width: int | None = None
    reads_video_padding: bool = False
    data: ClassVar[type[DetrData]] = DetrData
    own_parameters: ClassVar[tuple[str, ...]] = ()

    def read(
        self,
        config: DetrTrainConfig,
        paths: Mapping[str, Path],
        screen: Screen | None = None,
        originals: bool = False,
    ) -> DetrData:
        """Read and check the sets."""
        return read_detr_data(paths, config, screen, originals)

    def words_only(
        self,
        config: DetrTrainConfig,
        store: FeatureStore,
        words: Sequence[str],
        split: Callable[[str], list[str]],
        queries: Queries | None = None,
    ) -> DetrData:
        """Return data without records, for sentences of ``words``."""
        if queries is None:
            vectors = load_word_vectors(config.words, set(words))
            if not len(vectors):
                raise UserError("no word of the queries has a vector in the word table; check --words and --queries")
            queries = WordQueries(vectors, split, config.max_words, config.normalize_words)
        return DetrData({}, store, queries, split)

    def vocabulary(self, config: DetrTrainConfig, data: DetrData) -> Vocabulary:
        """Return every word of the data, those of training sentences first."""
        words = dict.fromkeys(chain.from_iterable(data.sentences("train")))
        trained = len(words)
        words.update(dict.fromkeys(chain.from_iterable(data.sentences())))
        return Vocabulary(tuple(words), trained=trained)

    def task(
        self, config: DetrTrainConfig, data: DetrData, bank: FeatureBank, vocabulary: Vocabulary, device: torch.device
    ) -> DetrTask:
        """Build the task, with fresh weights."""
        model, criterion = self.build(config, data.queries.dim, bank.dim + ENDPOINTS)
        if not config.base_only:
            model = wrap_model(model, config=config.hero, freeze_base=config.freeze_base)
            criterion = wrap_criterion(criterion, model.config)
        collate = DetrCollate(bank, data.queries)
        return DetrTask(model.to(device), criterion.to(device), collate, clip_length=config.seconds_per_clip)

    def build(self, config: DetrTrainConfig, text_dim: int, video_dim: int) -> tuple[nn.Module, nn.Module]:
        """Build model and criterion with fresh weights."""
        given = {each.name for each in fields(config)}
        same = {each.name: getattr(config, each.name) for each in fields(self.described) if each.name in given}
        same.update(max_v_l=config.max_clips, max_q_l=config.max_words)
        if config.seconds_per_clip:
            same["clip_length"] = config.seconds_per_clip
        else:
            same.pop("clip_length", None)
        try:
            settings = self.described(text_dim=text_dim, video_dim=video_dim, **same)
        except ValueError as error:
            raise ConfigError(f"{config.title}: {error}") from error
        return self.builder(settings)

    def examples(
        self,
        config: DetrTrainConfig,
        data: DetrData,
        name: str,
        bank: FeatureBank,
        vocabulary: Vocabulary,
        learned: bool = False,
    ) -> list[DetrExample]:
        """Make the examples of a set."""
        return make_detr_examples(
            data.sets[name], bank, config.seconds_per_clip, config.scored_clip_length, learned=learned
        )

    def trained(
        self,
        config: DetrTrainConfig,
        data: DetrData,
        bank: FeatureBank,
        known: Vocabulary,
        weights: Mapping[str, Tensor],
        device: torch.device,
        sentences: Iterable[Sequence[str]] | None = None,
    ) -> tuple[DetrTask, Vocabulary]:
        """Load a run's model for the queries of ``data``."""
        check_widths(weights, data, bank)
        task = self.task(config, data, bank, known, device)
        task.model.load_state_dict(weights)
        sentences = data.sentences() if sentences is None else sentences
        words = dict.fromkeys((*known.words, *chain.from_iterable(sentences)))
        return task, replace(known, words=tuple(words))


def check_widths(weights: Mapping[str, Tensor], data: DetrData, bank: FeatureBank) -> None:
    """Raise ``UserError`` where features or words are not as wide as those that the run was trained on."""
    for layer, now, what, flag in (
        ("input_vid_proj", bank.dim + ENDPOINTS, "features", "--features of the same kind"),
        ("input_txt_proj", data.queries.dim, "word vectors", "--words or --query-features of the same kind"),
    ):
        extra = ENDPOINTS if layer == "input_vid_proj" else 0
        width = next(len(value) for key, value in weights.items() if key.endswith(f"{layer}.0.LayerNorm.weight"))
        if width != now:
            raise UserError(f"trained on {what} of width {width - extra}, these have {now - extra}; give {flag}")
