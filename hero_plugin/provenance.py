"""Which HERO a ``state_dict`` belongs to, noted where torch notes the versions of modules.

The note is part of the ``state_dict`` itself, not one of its entries: whoever saves a wrapped model's weights saves
it, in any training loop, and it loads with ``weights_only=True``. A copy made entry by entry has lost it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from torch import Tensor

from hero_plugin.config import HeroConfig

NOTE = "hero"
TRAINING_ONLY = ("cmtr", "dropout", "mask_ratio", "consistency", "relevance_weight", "consistency_weight", "checkpoint")
"""Fields that may differ between the model that wrote a checkpoint and the one that reads it, without harm."""


def note(state_dict: Mapping[str, Tensor], prefix: str, config: HeroConfig) -> None:
    """Write the config into ``state_dict``; prefix: of the wrapped model's entries, with its dot."""
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        metadata.setdefault(prefix[:-1], {})[NOTE] = asdict(config)


def noted(state_dict: Any) -> dict[str, Any] | None:
    """The fields of the config that the model of ``state_dict`` had; None where nothing is noted."""
    metadata = getattr(state_dict, "_metadata", None) or {}
    return next((dict(each[NOTE]) for each in metadata.values() if isinstance(each, Mapping) and NOTE in each), None)


def config_of(state_dict: Any) -> HeroConfig | None:
    """The :class:`~hero_plugin.HeroConfig` of the model that ``state_dict`` came from; None where it does not say.

    Raises:
        ValueError: the note has a field that this version does not know.
    """
    found = noted(state_dict)
    if found is None:
        return None
    unknown = sorted(set(found) - {field.name for field in fields(HeroConfig)})
    if unknown:
        raise ValueError(
            f"these weights were made with HeroConfig's {', '.join(unknown)}, which this hero-plugin does not know: "
            "a newer version wrote them, install that"
        )
    return HeroConfig(**found)


def differences(state_dict: Any, config: HeroConfig) -> list[str]:
    """What would make the weights mean something else in a model with ``config``: ``levels=2`` and the like.

    Fields that matter in training alone are left out, and so is a ``state_dict`` without a note.
    """
    here = asdict(config)
    found = noted(state_dict) or {}
    return [f"{name}={value!r}" for name, value in found.items() if name not in TRAINING_ONLY and here[name] != value]
