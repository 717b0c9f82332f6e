"""Which HERO a ``state_dict`` belongs to, noted where torch notes the versions of modules.

The note is part of the ``state_dict`` itself, not one of its entries: whoever saves a wrapped model's weights saves
it, in any training loop, and it loads with ``weights_only=True``. A copy made entry by entry has lost it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hero_plugin.config import HeroConfig
from hero_plugin.protocol import Grounder, ranks_clips

NOTE = "hero"


def note_config(state_dict: Mapping[str, Tensor], prefix: str, config: HeroConfig) -> None:
    """Write the config into ``state_dict``; ``prefix`` is that of the wrapped model's entries, with its dot."""
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        metadata.setdefault(prefix[:-1], {})[NOTE] = config.to_dict()


def with_config_note(weights: Mapping[str, Tensor], config: HeroConfig) -> dict[str, Tensor]:
    """Return a ``state_dict`` of these weights, of a wrapped model or a plug-in, that says its config."""
    state_dict: Any = OrderedDict(weights)
    state_dict._metadata = OrderedDict()
    note_config(state_dict, "", config)
    return state_dict


def config_of(state_dict: Any) -> HeroConfig | None:
    """Return the ``HeroConfig`` of the model that ``state_dict`` came from; None where it does not say.

    Raises:
        ValueError: the note has a field that this version does not know.
    """
    metadata = getattr(state_dict, "_metadata", None) or {}
    found = next((each[NOTE] for each in metadata.values() if isinstance(each, Mapping) and NOTE in each), None)
    return None if found is None else HeroConfig.from_dict(found)


def config_differences(state_dict: Any, config: HeroConfig, grounder: Grounder) -> list[str]:
    """Return what would make the weights mean something else in a model with ``config``: ``levels=2`` and the like.

    ``grounder`` is the model's. Empty where only training tells the two apart, or ``state_dict`` does not say.
    """
    there = config_of(state_dict)
    if there is None:
        return []
    here, there_is = (each.architecture(grounder.dim, ranks_clips(grounder)) for each in (config, there))
    return [f"{name}={getattr(there, name)!r}" for name, value in there_is.items() if here.get(name) != value]
