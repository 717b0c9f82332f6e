"""Sizes of the inputs and of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hero_plugin.integrations.bases import BASES
from hero_plugin.integrations.detr_base import DetrBase
from hero_plugin.integrations.emb_base import EmbBase
from hero_plugin.integrations.errors import UserError


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
