"""The cases of a benchmark: the settings that a comparison shares, the variants that it compares, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.bases import BASES, BaseName
from hero_plugin.integrations.training.detr import DetrBase
from hero_plugin.integrations.training.emb import EmbBase

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
    """What all variants in a comparison share; they are measured in turns, on one batch."""

    base: BaseName
    mode: Mode
    device: str
    dtype: Format = "fp32"

    def __str__(self) -> str:
        step = "training step" if self.mode == "train" else "inference"
        return f"{BASES[self.base].config.title}, {step}, {device_name(self.device)}, {self.dtype}"


@dataclass(frozen=True)
class Variant:
    """One of the compared models: a base, plain or with HERO in some form."""

    name: ModelName
    levels: int = 0
    """Of HERO; 0 for a plain base."""

    def __str__(self) -> str:
        return MEANINGS[self.name] + (f", {self.levels} level{'s' * (self.levels > 1)}" if self.levels else "")


def variants_of(names: Sequence[ModelName], levels: Sequence[int], mode: Mode) -> list[Variant]:
    """Return every named variant, those with HERO at every number of levels; plain ones first."""
    kept = [name for name in names if mode == "train" or name not in TRAINING_ONLY]
    plain = [Variant(name) for name in kept if name in WITHOUT_LEVELS]
    return plain + [Variant(name, count) for count in levels for name in kept if name not in WITHOUT_LEVELS]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a batch and of the model that takes it."""

    batch: int
    clips: int
    words: int
    dim: int
    video_dim: int
    text_dim: int

    def __str__(self) -> str:
        return f"B={self.batch} T={self.clips} L={self.words} D={self.dim}"


PUBLISHED_SIZES: Mapping[type, Sizes] = {
    # Charades-STA: I3D features and GloVe vectors.
    EmbBase: Sizes(batch=16, clips=128, words=12, dim=128, video_dim=1024, text_dim=300),
    # QVHighlights: SlowFast, CLIP and the clip's two ends.
    DetrBase: Sizes(batch=32, clips=75, words=32, dim=256, video_dim=2818, text_dim=512),
}
"""The sizes that the bases' authors published, by kind of base."""


def sizes_of(base: str, **changes: int | None) -> Sizes:
    """Return the published sizes of a base, but for what is given.

    Raises:
        UserError: a size that is not positive.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    return replace(PUBLISHED_SIZES[type(BASES[base])], **given)
