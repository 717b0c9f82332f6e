"""The table of the bases that can be trained; everything else about a base is behind its entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from hero_plugin import HeroConfig
from hero_plugin.adapters.detr.config import MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.adapters.moment_detr import build_moment_detr
from hero_plugin.adapters.qd_detr import build_qd_detr
from hero_plugin.adapters.tr_detr import build_tr_detr
from hero_plugin.integrations.data.feature_bank import FeatureBank
from hero_plugin.integrations.data.features import FeatureStore
from hero_plugin.integrations.data.words import Vocabulary
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.settings import ConfigError, filled
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData
from hero_plugin.integrations.training.detr import DetrBase, MomentDETRTrainConfig, QDDETRTrainConfig, TRDETRTrainConfig
from hero_plugin.integrations.training.emb import EmbBase
from hero_plugin.integrations.training.task import Task

BaseName = Literal["emb", "moment_detr", "qd_detr", "tr_detr"]
BASE_NAMES: tuple[BaseName, ...] = get_args(BaseName)


class Base(Protocol):
    """What training, evaluation and the bench ask of a base. Its configs and its data are of types of its own."""

    @property
    def config(self) -> type[TrainConfig]:
        """The settings of its trainings; ``config.title`` is its published name."""
        ...

    @property
    def data(self) -> type[GroundingData]:
        """What its data is."""
        ...

    @property
    def own_parameters(self) -> tuple[str, ...]:
        """Parameters of the model that depend on the data, by the base's names: a trained base does not bring them."""
        ...

    @property
    def reads_video_padding(self) -> bool:
        """Whether its answers, as its authors wrote them, move with how far a video is padded.

        They move by thousandths of a score, and by seconds at times. A batch then holds videos of one length, so that
        no answer depends on its neighbours.
        """
        ...

    @property
    def clone(self) -> tuple[str, str]:
        """The folder that its authors' repository is cloned into, and the module that holds the model."""
        ...

    @property
    def clone_width(self) -> int | None:
        """The one hidden size that its authors' code is written for, or None."""
        ...

    def read(
        self, config: Any, paths: Mapping[str, Path], screen: Screen | None = None, originals: bool = False
    ) -> Any:
        """Read and check sets of annotations; ``originals`` adds the queries that reworded ones reword."""
        ...

    def words_only(
        self,
        config: Any,
        store: FeatureStore,
        words: Sequence[str],
        split: Callable[[str], list[str]],
        queries: Any = None,
    ) -> Any:
        """Return data without records, for sentences of ``words``.

        Args:
            queries: the queries' own features, in place of word vectors.
        """
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
    "moment_detr": DetrBase(
        MomentDETRTrainConfig, MomentDETRConfig, build_moment_detr, clone=("moment_detr", "moment_detr.model")
    ),
    "qd_detr": DetrBase(
        QDDETRTrainConfig,
        QDDETRConfig,
        build_qd_detr,
        clone=("QD-DETR", "qd_detr.model"),
        clone_width=256,
        reads_video_padding=True,
    ),
    "tr_detr": DetrBase(
        TRDETRTrainConfig,
        TRDETRConfig,
        build_tr_detr,
        clone=("TR-DETR", "tr_detr.model"),
        clone_width=256,
        reads_video_padding=True,
    ),
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
