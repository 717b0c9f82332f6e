"""The flags of ``hero-plugin train moment_detr``, ``qd_detr`` and ``tr_detr``, each with its authors' recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hero_plugin.adapters.detr.config import DETRHyperparameters, MomentDETRHyperparameters
from hero_plugin.integrations.optimizers import OptimizerName
from hero_plugin.integrations.schedules import Schedule
from hero_plugin.integrations.settings import too_small
from hero_plugin.integrations.train_config import TrainConfig

PUBLISHED_CLIP_LENGTH = 2.0
"""Seconds, in the published features of QVHighlights."""


@dataclass(frozen=True)
class _DetrRecipe(TrainConfig):
    """The recipe of Moment-DETR's training script, which its heirs kept, and what a DETR reads."""

    epochs: int = 200
    batch_size: int = 32
    lr: float = 1e-4
    schedule: Schedule = "step"
    optimizer: OptimizerName = "adamw_all"
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    seed: int = 2018
    max_clips: int = 75
    eval_batch_size: int = 100
    eval_every: int = 5

    query_features: Path | None = None
    """Instead of --words: a folder of qidQUERY.npz, each with the array last_hidden_state (words, width)."""
    clip_length: float | None = None
    """Seconds a clip lasts where all last the same: longer videos are cut at max_clips, moments found are rounded to
    whole clips. 0: a video's clips share its duration, and longer videos are pooled. Not given: 2 with
    --query-features (the published QVHighlights features), else 0."""
    scored_clip_length: float = 2.0
    """Seconds of the clips that annotators' saliency scores are of (QVHighlights: 2)."""
    max_words: int = 32
    """Longer queries are cut."""
    normalize_features: bool = True
    """Scale each clip's features to length 1, each feature folder's for itself."""
    normalize_words: bool = True
    """Scale each word's vector to length 1."""


@dataclass(frozen=True)
class DetrTrainConfig(DETRHyperparameters, _DetrRecipe):
    """The settings that the DETRs share: how to train, what to read, and the model's own."""

    @property
    def seconds_per_clip(self) -> float:
        """The clips' one length, or 0 where they share their video's duration."""
        if self.clip_length is None:
            return PUBLISHED_CLIP_LENGTH if self.query_features else 0.0
        return self.clip_length

    def mistakes(self) -> list[str]:
        wrong = super().mistakes()
        if bool(self.words) == bool(self.query_features):
            wrong.append("give one of --words (a table of word vectors) and --query-features (a file a query)")
        if self.clip_length is not None and not self.clip_length >= 0:
            wrong.append(f"--clip-length must be 0 or more seconds, got {self.clip_length}")
        if not self.scored_clip_length > 0:
            wrong.append(f"--scored-clip-length must be positive, got {self.scored_clip_length}")
        return wrong + too_small(self, max_words=1)


@dataclass(frozen=True)
class MomentDETRTrainConfig(MomentDETRHyperparameters, DetrTrainConfig):
    """Train Moment-DETR, plain or with HERO. Defaults are its authors' recipe."""

    base: ClassVar[str] = "moment_detr"
    title: ClassVar[str] = "Moment-DETR"


@dataclass(frozen=True)
class QDDETRTrainConfig(DetrTrainConfig):
    """Train QD-DETR, plain or with HERO. Defaults are its authors' recipe."""

    base: ClassVar[str] = "qd_detr"
    title: ClassVar[str] = "QD-DETR"


@dataclass(frozen=True)
class TRDETRTrainConfig(DetrTrainConfig):
    """Train TR-DETR, plain or with HERO. Defaults are its authors' recipe (scripts/train.sh)."""

    base: ClassVar[str] = "tr_detr"
    title: ClassVar[str] = "TR-DETR"

    seed: int = 2017
    vtc_loss_coef: float = 0.3
    """Weight of the loss between whole videos and queries."""
    ctc_loss_coef: float = 0.5
    """Weight of the loss between clips and queries."""
