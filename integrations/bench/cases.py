"""What the bench measures: settings, which compared models share, and the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hero_plugin.integrations.bases import BASES, BaseName

ModelName = Literal["plain", "hero", "pair", "checkpoint", "literal", "upstream", "upstream-hero"]
Mode = Literal["train", "inference"]
Format = Literal["fp32", "bf16"]

OURS: tuple[ModelName, ...] = ("plain", "hero", "pair", "checkpoint", "literal")
UPSTREAM: tuple[ModelName, ...] = ("upstream", "upstream-hero")
WITHOUT_LEVELS = ("plain", "upstream")
TRAINING_ONLY = ("pair", "checkpoint")
"""In inference these do what "hero" does, but for a light head."""

MEANINGS = {
    "plain": "plain base",
    "hero": "HERO",
    "pair": "HERO pair",
    "checkpoint": "HERO checkpoint",
    "literal": "literal paper",
    "upstream": "upstream",
    "upstream-hero": "HERO on upstream",
}


def device_name(device: str) -> str:
    """Return the name of a device as a reader knows it."""
    return {"cpu": "CPU", "cuda": "GPU"}.get(device, device)


@dataclass(frozen=True)
class Setting:
    """What all models of a comparison share; they are measured in turns, on one batch."""

    base: BaseName
    mode: Mode
    device: str
    dtype: Format = "fp32"

    def __str__(self) -> str:
        step = "training step" if self.mode == "train" else "inference"
        return f"{BASES[self.base].config.title}, {step}, {device_name(self.device)}, {self.dtype}"


@dataclass(frozen=True)
class Model:
    """One of the compared models."""

    name: ModelName
    levels: int = 0
    """Of HERO; 0 for a plain base."""

    def __str__(self) -> str:
        return MEANINGS[self.name] + (f", {self.levels} level{'s' * (self.levels > 1)}" if self.levels else "")


def models_of(names: Sequence[ModelName], levels: Sequence[int], mode: Mode) -> list[Model]:
    """Return every named model, those with HERO at every number of levels; plain ones first."""
    kept = [name for name in names if mode == "train" or name not in TRAINING_ONLY]
    plain = [Model(name) for name in kept if name in WITHOUT_LEVELS]
    return plain + [Model(name, count) for count in levels for name in kept if name not in WITHOUT_LEVELS]
