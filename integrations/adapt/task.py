"""A run's task with what keeps it from forgetting added to its losses."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hero_plugin.integrations.adapt.distillation import Distillation
from hero_plugin.integrations.adapt.l2_sp import L2SP
from hero_plugin.integrations.task import Batch, Task


class AdaptTask:
    """The base's own task; the engine trains it as any other.

    epoch: of the run's training, whose labels the new queries get: the last, where EMB's are elastic.
    """

    def __init__(self, task: Task, epoch: int, *, distillation: float, l2_sp: float) -> None:
        self.task, self.epoch = task, epoch
        self.penalties: list[tuple[str, float, Distillation | L2SP]] = []
        if distillation:
            self.penalties.append(("loss_distillation", distillation, Distillation(task)))
        if l2_sp:
            self.penalties.append(("loss_l2_sp", l2_sp, L2SP(task.model)))

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        losses = self.task.losses(model, batch, self.epoch)
        for name, weight, penalty in self.penalties:
            losses[name] = penalty(model, batch)
            losses["loss"] = losses["loss"] + weight * losses[name]
        return losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)
