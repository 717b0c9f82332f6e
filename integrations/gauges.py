"""What of a model is worth watching over the epochs."""

from __future__ import annotations

from torch import nn

from hero_plugin import HeroModel


def level_gauges(model: nn.Module) -> dict[str, list[float]]:
    """The weights of the levels; nothing of a base alone, or with HERO off."""
    if not isinstance(model, HeroModel) or not model.config.active:
        return {}
    return {"level_weights": model.level_weights().tolist()}
