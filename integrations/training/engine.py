"""The training loop, which knows a task by a few methods and nothing about any base.

Every random choice comes from the seed: the order of the examples from (seed, epoch), the rest from (seed, step).
So a run that was killed anywhere and resumed ends with the weights of a run that was not.

Under ``torchrun`` every process has a trainer, and all do the same steps on their shards of the same batches: each
knows the losses of the whole batch and the scores of the whole set. The leading one writes and shows them.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Generator, Tensor, nn

from hero_plugin.cmtr import CMTR
from hero_plugin.integrations.scoring.metrics import recall_at
from hero_plugin.integrations.support import Interrupted, Interrupts, UserError
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.training.batching import EpochOrder, batches, predict_set
from hero_plugin.integrations.training.checkpoints import load_checkpoint, save_checkpoint
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.distributed import (
    ALONE,
    BatchShard,
    Group,
    autocast,
    loss_scaler,
    seed_device,
    seed_of,
    whole_outputs,
)
from hero_plugin.integrations.training.optim import build_optimizer, linear_decay, restore_optimizer, step_decay
from hero_plugin.integrations.training.run_folder import Events, RunFolder
from hero_plugin.integrations.training.task import Batch, Scores, Task, brief_scores

CURVE = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds of the recall curve: 0.05 to 0.95."""


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
        """Return the losses of a batch of ``total`` rows: labels of all, and inputs of this process' shard.

        ``step`` counts from 0 over the whole training, ``epoch`` from 0.
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


class Diverged(UserError):
    """The loss is no longer a number."""


@dataclass
class TrainingProgress:
    """The progress of a run, as saved in checkpoints."""

    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished batches of the epoch that is not."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Sums of this epoch's losses, on the device."""
    curve: list[list[float]] = field(default_factory=list)
    """(step, mean loss since the last point), ten points per epoch."""
    mark: list[float] = field(default_factory=lambda: [0, 0.0])
    """(finished batches, sum of the loss) at the curve's last point."""
    best: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0


class Trainer:
    """One run: a task, its settings, its folder, and how far it is.

    ``items_of`` gives the items of an epoch, where these change with it: as many as ``items``.

    >>> trainer = Trainer(task, TrainConfig(epochs=2), train_items, run, Screen())
    >>> trainer.restore()                          # only to continue an interrupted run
    >>> trainer.fit({"val": val_items, "test": test_items}, select="val")
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        items: Sequence[Any],
        run: RunFolder,
        screen: Screen,
        group: Group = ALONE,
        items_of: Callable[[int], Sequence[Any]] | None = None,
    ) -> None:
        self.items_of = items_of or (lambda epoch: items)
        self.task, self.config, self.run, self.screen = task, config, run, screen
        self.group = group
        self.device = next(task.model.parameters()).device
        self.optimizer = build_optimizer(task.model, config.optimizer, config.lr, config.weight_decay)
        self.scaler = loss_scaler(config.amp, self.device)
        self.order = EpochOrder(len(items), config.batch_size, config.seed)
        unused = [f"model.{name}" for name in task.unused_parameters]
        self.step = group.parallel(TrainingStep(task, config.seed, group), unused)
        self.events = Events(run.events)
        self.progress = TrainingProgress()
        self._saved_at = time.monotonic()

    def fit(self, evaluations: Mapping[str, Sequence[Any]], select: str | None) -> None:
        """Train what is left of the epochs, with scores on each evaluation set, of items by name.

        The scores of the set ``select`` choose ``best.pt``; None keeps the last epoch.

        Raises:
            Interrupted: SIGINT or SIGTERM came to any process; everything so far is in the checkpoint.
            Diverged: The loss became infinite or not a number.
        """
        try:
            with Interrupts() as interrupts, self.screen.training(self.config.epochs, len(self.order)):
                if not self.config.epochs:  # weights that are taken as they are: scored, and kept
                    self.finish_epoch({}, *self.evaluate(evaluations, interrupts), select)
                while self.progress.epoch < self.config.epochs:
                    losses = self.train_one_epoch(interrupts)
                    self.finish_epoch(losses, *self.evaluate(evaluations, interrupts), select)
        finally:
            self.events.close()

    def train_one_epoch(self, interrupts: Interrupts) -> Scores:
        """Train on the remaining batches of this epoch; return the means of its losses."""
        task, config, progress, group = self.task, self.config, self.progress, self.group
        model = task.model.train()
        interval = max(1, len(self.order) // 10)
        started = time.monotonic() - progress.seconds
        left = self.order.batches(progress.epoch)[progress.step :]
        self.screen.position(progress.epoch, progress.step)
        shard, workers = (group.rank, task.following_rows), config.workers
        items = self.items_of(progress.epoch)
        loaded = batches(task.collate, items, left, self.device, workers, shard=shard)
        for indices, batch in zip(left, loaded, strict=True):
            done = progress.epoch * len(self.order) + progress.step
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = config.lr * self._decay(done)
            with autocast(config.amp, self.device):
                losses = self.step(batch, len(indices), done, progress.epoch)
            self.optimizer.zero_grad(set_to_none=True)
            # Each process has a part of the gradient. DistributedDataParallel averages the parts; their sum is wanted.
            self.scaler.scale(losses["loss"] * group.size).backward()
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()

            for name, value in losses.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value.detach()
            progress.step += 1
            progress.seconds = time.monotonic() - started
            self.screen.step()
            # Reading a loss waits for the device, so it is read ten times per epoch and not at every step.
            if progress.step % interval == 0 or progress.step == len(self.order):
                self._read_loss(done + 1, norm)
            if group.any(interrupts.requested):
                self._leave()
            if self._checkpoint_is_due():
                self.save()
        return {name: value.item() / progress.step for name, value in progress.sums.items()}

    def evaluate(
        self, evaluations: Mapping[str, Sequence[Any]], interrupts: Interrupts
    ) -> tuple[dict[str, Scores], dict[str, list[float]]]:
        """Return the scores of each set, and its R1 by threshold, in every ``eval_every``-th epoch and the last."""
        config, number, group = self.config, self.progress.epoch + 1, self.group
        if number % config.eval_every and number < config.epochs:
            return {}, {}

        def after_batch() -> None:
            self.screen.evaluated()
            if group.any(interrupts.requested):
                self._leave()

        metrics, recall = {}, {}
        for name, items in evaluations.items():
            self.screen.evaluating(name, -(-len(items) // (config.eval_batch_size * group.size)))
            grounded = predict_set(
                self.task,
                items,
                config.eval_batch_size,
                amp=config.amp,
                workers=config.workers,
                clips=self.task.scores_clips,
                after_batch=after_batch,
                group=group,
            )
            metrics[name] = self.task.scores(items, grounded)
            ious = self.task.overlaps(items, grounded)
            recall[name] = [round(recall_at(ious, threshold), 3) for threshold in CURVE]
        return metrics, recall

    def finish_epoch(
        self, losses: Scores, metrics: dict[str, Scores], recall: dict[str, list[float]], select: str | None
    ) -> None:
        """Log the epoch that has just ended, keep its weights if they are the best, and save.

        A run killed before ``last.pt`` is there repeats the epoch's end, maybe on another device: the best weights get
        their name after it.
        """
        progress, number = self.progress, min(self.progress.epoch + 1, self.config.epochs)
        merit = self.task.merit(metrics[select]) if select in metrics else -math.inf
        # With no set to choose on, the last epoch is kept, not the one that is luckiest on a test set.
        if merit > progress.best or (select is None and number == self.config.epochs):
            progress.best, progress.best_epoch = merit, number
            if self.group.leads:
                best = {"model": self.task.model.state_dict(), "epoch": number, "metrics": metrics}
                save_checkpoint(best, self.run.next_best)
        line = {
            "epoch": number,
            "step": number * len(self.order),
            "lr": self.optimizer.param_groups[0]["lr"],
            "losses": losses,
            "curve": progress.curve,
            "metrics": metrics,
            "recall": recall,
            "gauges": self.task.gauges(self.task.model),
            "best_epoch": progress.best_epoch,
            "seconds": round(progress.seconds, 3),
        }
        if self.group.leads:
            self.run.append(line)
            self.events.add(line)
        self.progress = TrainingProgress(epoch=number, best=progress.best, best_epoch=progress.best_epoch)
        self.save()
        if self.group.leads and self.run.next_best.is_file():
            self.run.next_best.replace(self.run.best)
        self.screen.epoch_line(line, brief_scores(metrics))

    def save(self) -> None:
        """Write ``last.pt``: all that the next step depends on, for any number of processes."""
        self._saved_at = time.monotonic()
        if not self.group.leads:
            return
        state = {
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }
        save_checkpoint(state, self.run.last)

    def restore(self) -> None:
        """Continue from ``last.pt``; drop what came after it from the log and the events.

        A run that was killed before its first checkpoint starts again, from the same seed.
        """
        state = self.group.from_leader(lambda: load_checkpoint(self.run.last) if self.run.last.is_file() else None)
        if state is not None:
            self.task.model.load_state_dict(state["model"])
            restore_optimizer(self.optimizer, state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.progress = TrainingProgress(**state["progress"])
            self.progress.sums = {name: value.to(self.device) for name, value in self.progress.sums.items()}
        if self.group.leads:
            if self.run.next_best.is_file():
                known = load_checkpoint(self.run.next_best)["epoch"] == self.progress.best_epoch
                self.run.next_best.replace(self.run.best) if known else self.run.next_best.unlink()
            self.run.truncate(self.progress.epoch if self.config.epochs else -1)  # without epochs it is scored anew
            self.events.restart(self.run.history())

    def _decay(self, step: int) -> float:
        config = self.config
        total = len(self.order) * config.epochs
        warmup = round(config.warmup * total)
        if config.schedule == "step":
            return step_decay(step, config.lr_drop * len(self.order), warmup)
        return linear_decay(step, total, warmup)

    def _leave(self) -> None:
        self.save()
        self.group.wait()  # torchrun may end all processes once one has left
        at, config = self.progress, self.config
        raise Interrupted(f"in epoch {at.epoch + 1} of {config.epochs}, after step {at.step} of {len(self.order)}")

    def _read_loss(self, step: int, norm: Tensor) -> None:
        progress = self.progress
        total = progress.sums["loss"].item()
        mean = (total - progress.mark[1]) / (progress.step - progress.mark[0])
        progress.mark = [progress.step, total]
        # After the last step no further loss shows what a gradient has done. A scaler skips steps of infinite ones.
        finite = self.scaler.is_enabled() or bool(norm.isfinite())
        if not (math.isfinite(mean) and finite):
            what = f"the loss became {mean}" if not math.isfinite(mean) else f"the gradient became {norm.item()}"
            raise Diverged(f"{what} by step {step} (epoch {progress.epoch + 1}); lower --lr, or train with --amp none")
        progress.curve.append([step, mean])
        self.screen.loss(mean)

    def _checkpoint_is_due(self) -> bool:
        steps, seconds = self.config.checkpoint_steps, self.config.checkpoint_seconds
        by_steps = steps > 0 and self.progress.step % steps == 0
        return by_steps or (seconds > 0 and time.monotonic() - self._saved_at >= seconds)
