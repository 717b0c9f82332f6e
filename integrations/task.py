"""What the engine asks of a base and its data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rich.table import Table
from torch import Tensor, nn

from hero_plugin import HeroModel
from hero_plugin.metrics import SCORES

if TYPE_CHECKING:
    from hero_plugin.integrations.grounding import Grounded

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
    """What a model says of a batch, still on its device."""

    moments: Tensor
    """(B, K, 2) seconds, best first."""
    scores: Tensor
    """(B, K), descending."""
    relevance: Tensor
    """(B, T) in [0, 1], how much each clip belongs to the query; 0 on padding."""
    saliency: Tensor | None = None
    """(B, T), the same before it was squeezed into [0, 1], where the base has such scores: to be submitted."""


class Collate(Protocol):
    """Examples to one batch of tensors. Apart from the model, so that loading processes can hold it."""

    @property
    def parallelizable(self) -> bool:
        """Whether other processes can make its batches: not where these are made of what is on a GPU."""
        ...

    def __call__(self, items: Sequence[Any], rows: Sequence[int] | None = None) -> Batch:
        """rows: those of ``items`` that the model runs here, where several processes share them; None is all.

        What the model takes is of these rows alone, as wide as all of them need; what the losses read is of all.
        Features that wait on the device come as a :class:`~hero_plugin.integrations.resident.DeviceBatch`, whose
        ``to`` is their tensor.
        """
        ...

    def clips(self, item: Any) -> int:
        """How many clips an example has; batches for evaluation are sorted by it."""
        ...


class Task(Protocol):
    """A base, wrapped or plain, and its data. Examples are of a type of the task's own."""

    model: nn.Module
    collate: Collate
    scores_clips: bool
    """Whether ``scores`` reads what is said of single clips, which evaluation otherwise leaves on the device."""
    file_for_each_set: bool
    """Whether predictions of several sets go into a file each."""
    unread: Sequence[str]
    """Parameters of the model that learn and that its losses never reach."""
    neighbours: int
    """How many rows behind it in the batch the model compares each row with while training."""

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Scalars by name; ``loss`` is the total that trains, the others are only reported.

        It runs the model once, on the batch's inputs, and draws what it draws before. Several processes each have
        the inputs of their own rows; the outputs are of all rows by the time that they come back.
        """
        ...

    def predict(self, model: nn.Module, batch: Batch) -> Prediction: ...

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """All that the model says of a video's clips, each as logits (B, T) of a distribution over them, and the mask.

        outputs: of the model's forward on the batch, where it has just been run.
        """
        ...

    def truth(self, item: Any) -> Sequence[tuple[float, float]]:
        """The annotated moments in seconds; none where the query is not annotated."""
        ...

    def scores(self, items: Sequence[Any], grounded: Grounded) -> Scores:
        """What is reported of a set, in percent: R1@0.3, R1@0.5, R1@0.7 and mIoU, then whatever is the task's own."""
        ...

    def merit(self, scores: Scores) -> float:
        """How good these scores are, for choosing the best epoch."""
        ...

    def prediction_lines(self, name: str, items: Sequence[Any], grounded: Grounded) -> list[dict[str, Any]]:
        """What a file of predictions says of the set ``name``, one JSON object a query."""
        ...

    def gauges(self, model: nn.Module) -> dict[str, list[float]]:
        """Parameters worth watching over the epochs, such as the weights of the levels."""
        ...


def level_gauges(model: nn.Module) -> dict[str, list[float]]:
    """Return the aggregation weight of each level; nothing for a base alone, or with HERO off."""
    if not isinstance(model, HeroModel) or not model.config.active:
        return {}
    return {"level_weights": model.level_weights().tolist()}
