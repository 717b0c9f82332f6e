"""The table of the bases that can be trained; everything else about a base is behind its entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from hero_plugin.adapters.detr.config import MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.adapters.moment_detr import build_moment_detr
from hero_plugin.adapters.qd_detr import build_qd_detr
from hero_plugin.adapters.tr_detr import build_tr_detr
from hero_plugin.integrations.support.settings import ConfigError
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.detr import DetrBase, MomentDETRTrainConfig, QDDETRTrainConfig, TRDETRTrainConfig
from hero_plugin.integrations.training.emb import EmbBase
from hero_plugin.integrations.training.task import Base

BaseName = Literal["emb", "moment_detr", "qd_detr", "tr_detr"]
BASE_NAMES: tuple[BaseName, ...] = get_args(BaseName)

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


def base_of(settings: Mapping[str, Any], source: str) -> Base:
    """Return the base that JSON settings name, EMB where they name none.

    Raises:
        ConfigError: There is no such base.
    """
    if (name := settings.get("base", "emb")) not in BASES:
        raise ConfigError(f"{source}: base must be one of {', '.join(BASES)}, got {name!r}")
    return BASES[name]


def config_from(settings: Mapping[str, Any], source: str) -> TrainConfig:
    """Return the defaults of a base with JSON settings over them; raise ``ConfigError`` where they do not fit."""
    return base_of(settings, source).config().updated(settings, source)
