"""The training step: a batch's losses, with all randomness derived from seed, step and, for dropout, process."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Generator, Tensor, nn

from hero_plugin.cmtr import CMTR
from hero_plugin.integrations.process_group import ALONE, Group
from hero_plugin.integrations.seeding import seed_device, seed_of
from hero_plugin.integrations.shares import BatchShard
from hero_plugin.integrations.task import Batch, Task
from hero_plugin.integrations.whole_batch import whole_outputs


class TrainingStep(nn.Module):
    """A task's losses as a module's forward, which ``DistributedDataParallel`` can wrap.

    Each process runs its shard of the rows through the model and receives the outputs of the others' rows. So
    every process computes the losses of the whole batch, by the task's own formula, whatever it averages over.

    Masked words, and what a task draws before it runs the model, are drawn for the whole batch and are the same for
    any number of processes; what the model itself draws, its dropout, is each process' own.
    """

    def __init__(self, task: Task, seed: int, group: Group = ALONE) -> None:
        super().__init__()
        self.model, self.task, self.seed, self.group = task.model, task, seed, group
        self.device = next(task.model.parameters()).device
        self.masks = Generator(self.device)
        self.maskers = [module for module in task.model.modules() if isinstance(module, CMTR)]

    def forward(self, batch: Batch, total: int, step: int, epoch: int) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            batch: Labels of all rows, and inputs of this process' shard.
            total: Rows of the batch.
            step: Number of steps before it in the whole training.
            epoch: The epoch, from 0.
        """
        shard = BatchShard.of(total, self.group.rank, self.task.following_rows)

        def before(model: nn.Module, inputs: Any) -> None:
            seed_device(seed_of(self.seed, step, f"dropout {self.group.rank.index}"), self.device)

        def drawing(cmtr: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            self.masks.manual_seed(seed_of(self.seed, step, "masks"))
            return args, {**kwargs, "generator": self.masks, "part": (shard.rows, shard.total)}

        def after(model: nn.Module, inputs: Any, outputs: Any) -> Any:
            return whole_outputs(model, outputs, shard, self.group)

        seed_device(seed_of(self.seed, step, "batch"), self.device)
        with ExitStack() as hooks:
            hooks.enter_context(self.model.register_forward_pre_hook(before))
            for masker in self.maskers:
                hooks.enter_context(masker.register_forward_pre_hook(drawing, with_kwargs=True))
            if self.group.size > 1:
                hooks.enter_context(self.model.register_forward_hook(after))
            return self.task.losses(self.model, batch, epoch)
