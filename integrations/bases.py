"""The table of the bases that can be trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hero_plugin import HeroConfig
from hero_plugin.adapters.detr.config import MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.data import GroundingData
from hero_plugin.integrations.detr_base import DetrBase
from hero_plugin.integrations.detr_config import MomentDETRTrainConfig, QDDETRTrainConfig, TRDETRTrainConfig
from hero_plugin.integrations.emb_base import EmbBase
from hero_plugin.integrations.feature_bank import FeatureBank
from hero_plugin.integrations.settings import ConfigError, filled
from hero_plugin.integrations.task import Task
from hero_plugin.integrations.train_config import TrainConfig
from hero_plugin.integrations.vocabulary import Vocabulary


class Base(Protocol):
    """The interface between a base and training and evaluation. Each base has its own types of config and data."""

    config: type[TrainConfig]
    data: type[GroundingData]
    own_parameters: tuple[str, ...]
    """Parameters of the model that depend on the data, by the base's names: a trained base does not bring them."""

    def read(
        self, config: Any, paths: Mapping[str, Path], screen: Screen | None = None, originals: bool = False
    ) -> Any:
        """Read and check sets of annotations; ``originals`` adds the queries that reworded ones reword."""
        ...

    def vocabulary(self, config: Any, data: Any) -> Vocabulary:
        """Return the vocabulary of a new run."""
        ...

    def task(self, config: Any, data: Any, bank: FeatureBank, vocabulary: Vocabulary, device: torch.device) -> Task:
        """Build model and losses, with fresh weights."""
        ...

    def examples(
        self, config: Any, data: Any, name: str, bank: FeatureBank, vocabulary: Vocabulary, learned: bool = False
    ) -> list[Any]:
        """Make the task's examples of a set; ``learned``: to train on, not to score."""
        ...

    def trained(
        self,
        config: Any,
        data: Any,
        bank: FeatureBank,
        known: Vocabulary,
        weights: Mapping[str, Tensor],
        device: torch.device,
        sentences: Iterable[Sequence[str]] | None = None,
    ) -> tuple[Task, Vocabulary]:
        """A run's model for the queries of ``data``, and its vocabulary with their words.

        known: the run's vocabulary; sentences: tokenized, in place of those of ``data``. Raises ``UserError`` where
        features or word vectors are not of the run's kind.
        """
        ...


BASES: Mapping[str, Base] = {
    "emb": EmbBase(),
    "moment_detr": DetrBase(MomentDETRTrainConfig, MomentDETRConfig),
    "qd_detr": DetrBase(QDDETRTrainConfig, QDDETRConfig),
    "tr_detr": DetrBase(TRDETRTrainConfig, TRDETRConfig),
}


def config_from(settings: Mapping[str, Any], source: str, start: TrainConfig | None = None) -> TrainConfig:
    """A config from JSON values, over ``start``, or over the defaults of the base that they name (EMB if none).

    Raises:
        ConfigError: a base or a field that does not exist (with the nearest that does), another base than that of
            ``start``, or a value of the wrong kind.
    """
    values = {name: value for name, value in settings.items() if name not in ("versions", "base", "adapted")}
    named = settings.get("base", "emb" if start is None else start.base)
    if named not in BASES:
        raise ConfigError(f"{source}: base must be one of {', '.join(BASES)}, got {named!r}")
    if start is None:
        start = BASES[named].config()
    elif named != start.base:
        raise ConfigError(f"{source}: these are settings of {named}, not of {start.base}")
    if values.get("paper") and not start.paper:
        start = replace(start, hero=HeroConfig.paper())
    return filled(start, values, source)
