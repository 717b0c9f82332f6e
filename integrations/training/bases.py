"""The table of the bases that can be trained; everything else about a base is behind its entry."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, get_args

from hero_plugin.adapters.detr.config import MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.adapters.moment_detr import build_moment_detr
from hero_plugin.adapters.qd_detr import build_qd_detr
from hero_plugin.adapters.tr_detr import build_tr_detr
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.process import declared_bases
from hero_plugin.integrations.support.settings import ConfigError
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.detr import DetrBase, MomentDETRTrainConfig, QDDETRTrainConfig, TRDETRTrainConfig
from hero_plugin.integrations.training.emb import EmbBase
from hero_plugin.integrations.training.task import Base

BaseName = Literal["emb", "moment_detr", "qd_detr", "tr_detr"]
BASE_NAMES: tuple[BaseName, ...] = get_args(BaseName)


class _Bases(dict[str, Base]):
    """The bases that ship here; one of another package is loaded once it is asked for: docs/guide/own_package.md."""

    def __missing__(self, name: str) -> Base:
        return _installed(name)


@cache
def _installed(name: str) -> Base:
    """Return the base that another package declares under a name.

    Raises:
        KeyError: None does.
        UserError: What is declared is not that base, or cannot be loaded.
    """
    declared = {entry.value: entry for entry in declared_bases() if entry.name == name}
    if not declared:
        raise KeyError(name)
    if len(declared) > 1:
        raise UserError(f"several packages declare a base {name!r}: {', '.join(declared)}; uninstall all but one")
    ((source, entry),) = declared.items()
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"the base {name!r} is declared as {source}, which cannot be loaded: {error}") from error
    base = found() if isinstance(found, type) and issubclass(found, Base) else found
    if not isinstance(base, Base):
        raise UserError(f"the base {name!r} is declared as {source}, which must be a Base, and is {found!r}")
    if base.config.base != name:
        raise UserError(f"{source} is declared as the base {name!r}, but its config says base = {base.config.base!r}")
    return base


BASES: dict[str, Base] = _Bases()
BASES |= {
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
    """Return the base that JSON settings name, EMB where they name none; ``ConfigError`` if there is no such base."""
    name = settings.get("base", "emb")
    try:
        return BASES[name]
    except (KeyError, TypeError):
        known = ", ".join(dict.fromkeys([*BASE_NAMES, *(entry.name for entry in declared_bases())]))
        raise ConfigError(f"{source}: base must be one of {known}, got {name!r}") from None


def config_from(settings: Mapping[str, Any], source: str) -> TrainConfig:
    """Return the defaults of a base with JSON settings over them; raise ``ConfigError`` where they do not fit."""
    return base_of(settings, source).config().updated(settings, source)
