"""A step as the training scripts take it, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin.integrations.bench.cases import Format, Mode
from hero_plugin.integrations.bench.timing import Step
from hero_plugin.integrations.loading import to_device
from hero_plugin.integrations.optimizers import build_optimizer
from hero_plugin.integrations.precision import Amp, autocast
from hero_plugin.integrations.task import Batch, Task

AMP: dict[str, Amp] = {"fp32": "none", "bf16": "bf16"}


@dataclass(frozen=True)
class Job:
    """A model, its batch and its optimizer, ready to take steps."""

    task: Task
    batch: Batch
    optimizer: torch.optim.Optimizer | None
    """None in inference."""
    clip_norm: float
    amp: Amp
    device: torch.device

    @classmethod
    def of(cls, task: Task, batch: Batch, recipe: Any, mode: Mode, dtype: Format, device: torch.device) -> Job:
        """On the device, in the mode; the optimizer is the recipe's."""
        model = task.model.to(device).train(mode == "train")
        if isinstance(criterion := getattr(task, "criterion", None), nn.Module):
            criterion.to(device)
        optimizer = None
        if mode == "train":
            fused = device.type == "cuda"
            optimizer = build_optimizer(model, recipe.optimizer, recipe.lr, recipe.weight_decay, fused=fused)
        batch = to_device(batch, device)
        return cls(task, batch, optimizer, recipe.clip_norm, AMP[dtype], device)

    def step(self, model: nn.Module | None = None) -> Step:
        """model: instead of the task's, the same compiled."""
        model = self.task.model if model is None else model
        return self._predict(model) if self.optimizer is None else self._train(model, self.optimizer)

    def held(self) -> Iterator[Tensor]:
        """Every tensor that is there between two steps."""
        model, optimizer = self.task.model, self.optimizer
        yield from model.parameters()
        yield from model.buffers()
        yield from (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
        yield from self.batch.values()
        for state in optimizer.state.values() if optimizer is not None else ():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def _train(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        def step() -> None:
            with autocast(self.amp, self.device):
                loss = self.task.losses(model, self.batch, epoch=0)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)
            optimizer.step()

        return step

    def _predict(self, model: nn.Module) -> Step:
        @torch.no_grad()
        def step() -> None:
            with autocast(self.amp, self.device):
                self.task.predict(model, self.batch)

        return step
