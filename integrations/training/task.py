"""A ``Task``: what the engine knows of a base. It computes and scores; a ``Base`` (``base.py``) makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from hero_plugin import HeroModel, wrap_model
from hero_plugin.integrations.data.feature_bank import BankCollate
from hero_plugin.integrations.scoring.metrics import SCORES, nearest_iou, scores_of
from hero_plugin.integrations.support.tables import Cell, Row, Table
from hero_plugin.integrations.training.config import TrainConfig

Batch = dict[str, Tensor]
Scores = dict[str, float]
"""Percent by name: those of ``SCORES``, then the task's own."""


@dataclass
class Prediction:
    """A model's predictions for a batch, still on its device."""

    moments: Tensor
    """(B, K, 2) seconds, best first."""
    scores: Tensor
    """(B, K), descending."""
    relevance: Tensor
    """(B, T) in [0, 1], how relevant each clip is to the query; 0 on padding."""
    saliency: Tensor | None = None
    """(B, T), the base's own clip scores before scaling to [0, 1], for submissions; None for a base without."""


@dataclass
class Grounded:
    """Predictions for a set, in the order of its items."""

    moments: np.ndarray
    """(Q, K, 2) seconds, best first."""
    scores: np.ndarray
    """(Q, K)."""
    relevance: list[np.ndarray]
    """One curve per query, (its clips,) in [0, 1]; empty unless requested."""
    saliency: list[np.ndarray] = field(default_factory=list)
    """The same in the base's own clip scores, where it has any."""


class Task(Protocol):
    """A base, wrapped or plain, with its losses, predictions and scores. Each task has its own type of examples."""

    model: nn.Module
    collate: BankCollate
    scores_clips: bool = False
    """Whether ``scores`` reads the scores of clips, which evaluation otherwise leaves on the device."""
    file_for_each_set: bool = False
    """Whether the predictions of each set go into a file of their own."""
    unused_parameters: Sequence[str] = ()
    """Names of trainable parameters that no loss reaches."""
    following_rows: int = 0
    """Number of following rows of the batch that the model compares each row with in training."""

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return scalars by name: ``loss`` is the total to train on, the others are only reported.

        Run the model once, on the batch's inputs, and draw random numbers only before. Several processes each have
        the inputs of their own rows; the outputs they get back are of all rows.
        """
        ...

    def predict(self, model: nn.Module, batch: Batch) -> Prediction:
        """Return the moments of each query, best first, and the scores of its clips."""
        ...

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """Return the model's scores of clips, each as logits (B, T) of a distribution over them, and the mask.

        ``outputs`` are the model's for the batch, where it has just been run.
        """
        ...

    def prediction_lines(self, name: str, items: Sequence[Any], grounded: Grounded) -> list[dict[str, Any]]:
        """Return the lines of a predictions file for the set ``name``: ids, best moment in seconds, its score."""
        return [
            {
                "set": name,
                "query_id": item.record.query_id,
                "video_id": item.record.video_id,
                "sentence": item.record.sentence,
                "moment": [round(float(time), 3) for time in grounded.moments[index, 0]],
                "score": round(float(grounded.scores[index, 0]), 6),
            }
            for index, item in enumerate(items)
        ]

    def truth(self, item: Any) -> Sequence[tuple[float, float]]:
        """Return the annotated moments in seconds; none where the query is not annotated."""
        return item.record.moments

    def overlaps(self, items: Sequence[Any], grounded: Grounded) -> np.ndarray:
        """Return the IoU (annotated queries,) of each query's best moment with the nearest annotated one."""
        truths = [self.truth(item) for item in items]
        annotated = [index for index, truth in enumerate(truths) if len(truth)]
        return nearest_iou(grounded.moments[annotated, 0], [truths[index] for index in annotated])

    def scores(self, items: Sequence[Any], grounded: Grounded) -> Scores:
        """Score a set, in percent: R1@0.3, R1@0.5, R1@0.7 and mIoU, then the task's own scores."""
        return scores_of(self.overlaps(items, grounded))

    def merit(self, scores: Scores) -> float:
        """Return one number for choosing the best epoch, greater being better: the sum of the scores."""
        return sum(scores.values())

    def gauges(self, model: nn.Module) -> dict[str, list[float]]:
        """Return what to log per epoch: the aggregation weight of each level; nothing for a base alone."""
        if not isinstance(model, HeroModel) or not model.config.active:
            return {}
        return {"level_weights": model.level_weights().tolist()}


def with_hero(model: nn.Module, config: TrainConfig) -> nn.Module:
    """Return the model with HERO around it, or as it is where the settings say so."""
    return model if config.base_only else wrap_model(model, config=config.hero, freeze_base=config.freeze_base)


def scores_table(
    labels: Sequence[str], rows: Mapping[Any, Scores], title: str = "", counts: Sequence[str] = ()
) -> Table:
    """Return the usual four scores of some things, each named by its labels; see ``Table``."""
    made = [Row(names, tuple(Cell.of(scores[score]) for score in SCORES)) for names, scores in rows.items()]
    return Table(tuple(labels), SCORES, made, title, counts=tuple(counts))


def brief_scores(metrics: Mapping[str, Scores]) -> list[str]:
    """Return "NAME R1@0.3/R1@0.5/R1@0.7/mIoU" for each set."""
    return [f"{name} " + "/".join(f"{scores[column]:.1f}" for column in SCORES) for name, scores in metrics.items()]
