"""A base that reads clips and words as vectors: all that a training needs of it but its model, losses and answers.

A package of yours trains its own model by it: docs/guide/own_package.md.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin import HeroModel
from hero_plugin.integrations.data.feature_bank import FeatureBank
from hero_plugin.integrations.data.words import Vocabulary
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.task import Base, Batch, Prediction, Task, VectorCollate, with_hero
from hero_plugin.tensors import at_least_float32


@dataclass(frozen=True)
class VectorTrainConfig(TrainConfig):
    """The settings of such a training; a base's own names it by ``base`` and ``title`` and adds its model's sizes."""

    required = (*TrainConfig.required, "words")

    max_words: int = 32
    """Longer queries are cut."""
    normalize_features: bool = False
    """Scale each clip's features to length 1, each feature folder's for itself."""
    normalize_words: bool = False
    """Scale each word's vector to length 1."""

    def mistakes(self) -> list[str]:
        """Return what is wrong with the settings, one message each."""
        return super().mistakes() + too_small(self, max_words=1)


class VectorTask(Task):
    """The losses and answers of such a base; a base's own implements ``losses`` and ``predict``."""

    def __init__(self, model: nn.Module, collate: VectorCollate, config: Any) -> None:
        self.model, self.collate, self.config = model, collate, config

    @staticmethod
    def seconds(batch: Batch, first: Tensor, last: Tensor) -> Tensor:
        """Convert first and last clips (B, K), inclusive, to moments (B, K, 2) in seconds."""
        length = (batch["durations"] / batch["clips"])[:, None, None]
        return torch.stack([first, last + 1], dim=-1) * length

    @staticmethod
    def hero_loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted sum of HERO's two losses of the last forward, and each; nothing for a plain base.

        Of the batch it reads ``inside`` alone, (B, T) at the length of the clips that HERO meets: give a base that
        pools its clips ``{**batch, "inside": pooled}``.
        """
        if not isinstance(model, HeroModel):
            return {}
        _expect_clips(model.relevance, batch["inside"], "give hero_loss an `inside` of its clips, and override")
        weighted: Any = model.weighted_hero_loss(batch["inside"])
        losses = model.hero_losses()
        return {"loss": weighted, **losses} if losses else {}

    @staticmethod
    def relevance(model: nn.Module, batch: Batch, own: Tensor | None = None) -> Tensor:
        """Return how relevant each clip is, (B, T) in [0, 1]: as HERO says, else by the base's own logits, if any.

        For a base that keeps its clips: one that pools them makes (B, T) of ``model.relevance`` itself.
        """
        logits = getattr(model, "relevance", None) if isinstance(model, HeroModel) else own
        logits = own if logits is None else logits
        mask = batch["video_mask"]
        if logits is None:
            return torch.zeros_like(mask)
        _expect_clips(logits, mask, "override")
        return at_least_float32(logits).sigmoid() * mask

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """Return the logits (B, T) of the clips' relevance that HERO gives; nothing of a plain base."""
        if outputs is None:
            self.predict(model, batch)
        found = model.relevance if isinstance(model, HeroModel) else None
        return [] if found is None else [at_least_float32(found)], batch["video_mask"]

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> Prediction:
        """Return the moments of each query, best first, and the relevance of its clips."""


class VectorBase(Base):
    """A base that reads clips and words as vectors; a base's own names ``config`` and ``task``, and makes the model."""

    task: ClassVar[type[VectorTask]]

    @abstractmethod
    def make_model(self, config: Any, video_dim: int, word_dim: int) -> nn.Module:
        """Return the plain model with fresh weights, for features and word vectors of these widths."""

    def new_task(self, config: Any, data: Any, bank: FeatureBank, vocabulary: Vocabulary, device: torch.device) -> Task:
        """Build the model with fresh weights, wrap it unless it is to stay plain, and make its task."""
        model = with_hero(self.make_model(config, bank.dim, data.queries.dim), config)
        return self.task(model.to(device), VectorCollate(bank, data.queries), config)


def _expect_clips(logits: Tensor | None, clips: Tensor, then: str) -> None:
    if logits is not None and logits.shape != clips.shape:
        raise UserError(
            f"relevance is {tuple(logits.shape)} for clips {tuple(clips.shape)}: a base that pools its clips must "
            f"{then} its task's `relevance` and `clip_logits`, to be of the video's clips"
        )
