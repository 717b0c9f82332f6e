"""EMB as a base: how its trainings and evaluations are assembled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hero_plugin import wrap_model
from hero_plugin.adapters.emb import EMB
from hero_plugin.integrations.batches import EmbCollate, Example
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.emb_config import EmbTrainConfig
from hero_plugin.integrations.emb_data import EmbData, read_data
from hero_plugin.integrations.emb_task import EmbTask
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.feature_bank import FeatureBank
from hero_plugin.integrations.features import FeatureStore
from hero_plugin.integrations.vocabulary import Vocabulary
from hero_plugin.integrations.words import load_word_vectors

WORD_TABLE = "embedding_net.word_emb.glove_vec"


class EmbBase:
    """EMB: its word table is part of the model, and grows with the words of an evaluation."""

    config = EmbTrainConfig
    data = EmbData
    own_parameters: tuple[str, ...] = (WORD_TABLE, "embedding_net.char_emb.char_emb.weight")
    reads_video_padding = False
    clone = ("EMB", "model.emb")
    clone_width: int | None = None

    def read(
        self,
        config: EmbTrainConfig,
        paths: Mapping[str, Path],
        screen: Screen | None = None,
        originals: bool = False,
    ) -> EmbData:
        """Read and check the sets."""
        return read_data(paths, config, screen, originals)

    def words_only(
        self,
        config: EmbTrainConfig,
        store: FeatureStore,
        words: Sequence[str],
        split: Callable[[str], list[str]],
        queries: None = None,
    ) -> EmbData:
        """Return data without records, for sentences of ``words``."""
        return EmbData({}, store, load_word_vectors(config.words, set(words)), split)

    def vocabulary(self, config: EmbTrainConfig, data: EmbData) -> Vocabulary:
        """Return the words of the data that have vectors."""
        vocabulary = Vocabulary.of(data.sentences("train"), data.sentences(), data.vectors, config.word_norm)
        if not len(vocabulary):
            raise UserError("no word of the annotations has a vector in the word table; check --words and --tokenizer")
        return vocabulary

    def task(
        self, config: EmbTrainConfig, data: EmbData, bank: FeatureBank, vocabulary: Vocabulary, device: torch.device
    ) -> EmbTask:
        """Build the task, with fresh weights."""
        return build_task(config, bank, vocabulary.table(data.vectors), device)

    def examples(
        self,
        config: EmbTrainConfig,
        data: EmbData,
        name: str,
        bank: FeatureBank,
        vocabulary: Vocabulary,
        learned: bool = False,
    ) -> list[Example]:
        """Make the examples of a set; one per moment where they are ``learned``."""
        return data.examples(name, bank, vocabulary, config.positions, every_moment=learned)

    def trained(
        self,
        config: EmbTrainConfig,
        data: EmbData,
        bank: FeatureBank,
        known: Vocabulary,
        weights: Mapping[str, Tensor],
        device: torch.device,
        sentences: Iterable[Sequence[str]] | None = None,
    ) -> tuple[EmbTask, Vocabulary]:
        """Load a run's model; new words get their vectors from ``data.vectors``, scaled as the old ones."""
        vocabulary = known.extended(data.sentences() if sentences is None else sentences, data.vectors)
        new = Vocabulary(vocabulary.words[len(known) :], known.scale)
        weights = with_words(weights, new, data)
        check_width(weights, bank)
        task = build_task(config, bank, weights[word_table(weights)].numpy(), device)
        task.model.load_state_dict(weights)
        return task, vocabulary


def build_task(config: EmbTrainConfig, bank: FeatureBank, table: np.ndarray, device: torch.device) -> EmbTask:
    """Build EMB on a table (words, dim) of frozen vectors, wrapped in HERO unless the config says base only."""
    settings = config.emb(video_dim=bank.dim, word_dim=table.shape[1])
    model: nn.Module = EMB(settings, table)
    if not config.base_only:
        model = wrap_model(model, config=config.hero, freeze_base=config.freeze_base)
    return EmbTask(model.to(device), EmbCollate(bank), settings, config.epochs)


def check_width(weights: Mapping[str, Tensor], bank: FeatureBank) -> None:
    """Raise ``UserError`` where the features are not as wide as those that the run was trained on."""
    name = next(key for key in weights if key.endswith("video_affine.linear.conv1d.weight"))
    width = weights[name].shape[1]
    if width != bank.dim:
        raise UserError(
            f"trained on features of width {width}, these have {bank.dim}; give --features of the same kind"
        )


def with_words(weights: Mapping[str, Tensor], new: Vocabulary, data: EmbData) -> dict[str, Tensor]:
    """The weights with rows for new words at the end of their word table."""
    name = word_table(weights)
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


def word_table(weights: Mapping[str, Tensor]) -> str:
    """The name of the word table among the weights, base or HERO."""
    return next(key for key in weights if key.endswith(WORD_TABLE))
