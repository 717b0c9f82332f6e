"""The interface between the engine and a base: tasks, batches, predictions and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from rich.table import Table
from torch import Tensor, nn

from hero_plugin import HeroModel
from hero_plugin.integrations.scoring.metrics import SCORES

Batch = dict[str, Tensor]
Scores = dict[str, float]
"""Percent by name: those of ``SCORES``, then the task's own."""


def scores_table(rows: Sequence[tuple[str, ...]], names: Sequence[str], title: str | None = None) -> Table:
    """Return a table of text: columns with the given names, then one column per score."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True)
    for column in SCORES:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def score_cells(scores: Scores) -> tuple[str, ...]:
    """Return the scores as cells of ``scores_table``; "-" where no query is annotated."""
    return tuple("-" if math.isnan(scores[column]) else f"{scores[column]:.2f}" for column in SCORES)


def brief_scores(metrics: Mapping[str, Scores]) -> list[str]:
    """Return "NAME R1@0.3/R1@0.5/R1@0.7/mIoU" for each set."""
    return [f"{name} " + "/".join(f"{scores[column]:.1f}" for column in SCORES) for name, scores in metrics.items()]


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


class Collate(Protocol):
    """Makes one batch of tensors from examples. Apart from the model, so that loading processes can hold it."""

    @property
    def parallelizable(self) -> bool:
        """Return whether other processes can make its batches: false where they are gathered on a GPU."""
        ...

    def __call__(self, items: Sequence[Any], rows: Sequence[int] | None = None) -> Batch:
        """Make a batch.

        The model's inputs are of ``rows`` alone, as wide as all items need; what the losses read is of all items.
        Features on the device come as a ``DeviceBatch``, whose ``to`` makes their tensor.

        Args:
            items: Examples.
            rows: Those that the model runs here, where several processes share a batch; None is all.
        """
        ...

    def clips(self, item: Any) -> int:
        """Return the number of clips of an example; batches for evaluation are sorted by it."""
        ...


class Task(Protocol):
    """A base, wrapped or plain, with its losses, predictions and scores. Each task has its own type of examples."""

    model: nn.Module
    collate: Collate
    scores_clips: bool
    """Whether ``scores`` reads the scores of clips, which evaluation otherwise leaves on the device."""
    file_for_each_set: bool
    """Whether the predictions of each set go into a file of their own."""
    unused_parameters: Sequence[str]
    """Names of trainable parameters that no loss reaches."""
    following_rows: int
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

        Args:
            model: The task's model.
            batch: A batch.
            outputs: The model's outputs for the batch, where it has just been run.
        """
        ...

    def truth(self, item: Any) -> Sequence[tuple[float, float]]:
        """Return the annotated moments in seconds; none where the query is not annotated."""
        ...

    def scores(self, items: Sequence[Any], grounded: Grounded) -> Scores:
        """Score a set, in percent: R1@0.3, R1@0.5, R1@0.7 and mIoU, then the task's own scores."""
        ...

    def merit(self, scores: Scores) -> float:
        """Return one number for choosing the best epoch; greater is better."""
        ...

    def prediction_lines(self, name: str, items: Sequence[Any], grounded: Grounded) -> list[dict[str, Any]]:
        """Return the lines of a predictions file for the set ``name``, one JSON object per query."""
        ...

    def gauges(self, model: nn.Module) -> dict[str, list[float]]:
        """Return parameters to log per epoch, such as the weights of the levels."""
        ...


def level_gauges(model: nn.Module) -> dict[str, list[float]]:
    """Return the aggregation weight of each level; nothing for a base alone, or with HERO off."""
    if not isinstance(model, HeroModel) or not model.config.active:
        return {}
    return {"level_weights": model.level_weights().tolist()}


# Inference over a whole set: predicted moments, and their scores.


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
