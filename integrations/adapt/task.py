"""Task of an adaptation: the run's own, with a loss that keeps it from forgetting."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hero_plugin.integrations.adapt.distillation import Distillation
from hero_plugin.integrations.task import Batch, Task


class AdaptTask:
    """The base's own task with a loss added; the engine trains it as any other.

    Args:
        task: the base's.
        epoch: the epoch of the run's training whose labels the new queries get: the last, where EMB's are elastic.
        distillation: weight of the added loss; 0: none.
    """

    def __init__(self, task: Task, epoch: int, distillation: float) -> None:
        self.task, self.epoch, self.weight = task, epoch, distillation
        self.distillation = Distillation(task) if distillation else None

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the base's losses, and ``loss_distillation``."""
        losses = self.task.losses(model, batch, self.epoch)
        if self.distillation is not None:
            losses["loss_distillation"] = self.distillation(model, batch)
            losses["loss"] = losses["loss"] + self.weight * losses["loss_distillation"]
        return losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)
