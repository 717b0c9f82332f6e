"""Learning without forgetting (Li and Hoiem, ECCV 2016): a loss that keeps answers near those before, on any query."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from hero_plugin.integrations.task import Batch, Task
from hero_plugin.losses import consistency_loss


class Distillation:
    """``D_KL(before || now)``, the mean over all of the task's distributions over a video's clips."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.teacher = deepcopy(task.model).eval().requires_grad_(False)
        self._outputs: object = None
        task.model.register_forward_hook(self._keep)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss, a scalar; ``model`` has just run forward on the batch."""
        with torch.no_grad():
            before, mask = self.task.clip_logits(self.teacher, batch)
        now, _ = self.task.clip_logits(model, batch, self._outputs)
        self._outputs = None
        losses = [consistency_loss(old, new, mask) for old, new in zip(before, now, strict=True)]
        return torch.stack(losses).mean()

    def _keep(self, model: nn.Module, inputs: object, outputs: object) -> None:
        if model.training:
            self._outputs = outputs
