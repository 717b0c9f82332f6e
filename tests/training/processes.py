"""Two gloo processes on this machine, as torchrun would start them, and what they do in the tests."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, multiprocessing, nn

from hero_plugin.integrations.support.process import Interrupted, Rank, end_at_once
from hero_plugin.integrations.training.bases import BASES, config_from
from hero_plugin.integrations.training.batching import predict_set
from hero_plugin.integrations.training.distributed import BatchShard, Group, PeerLost, joined
from hero_plugin.integrations.training.engine import TrainingStep
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.train import read, run_vocabulary
from tests.screen import QUIET
from tests.training.files import detr_settings, write_files, write_published
from tests.training.toy import RECIPE, ToyTask, fit, items, trainer

CPU = torch.device("cpu")
TOY = replace(RECIPE, checkpoint_seconds=0)
LOSSES = "losses "
COUNT = 17
"""Training examples of the toy: the last batch of an epoch is one, which leaves a process without."""


HERO = {"levels": 2, "num_heads": 4, "stride": 1}
SAME_LENGTH = {"max_clips": 8}
"""Every video of the synthetic set has at least as many clips."""
EXACT = (
    "EMB",
    "HERO-EMB",
    "HERO-EMB, noise, weights of the query",
    "HERO-EMB, literal paper",
    "Moment-DETR, padded",
    "HERO-Moment-DETR, padded",
    "QD-DETR",
    "QD-DETR, one decoder layer",
    "HERO-QD-DETR, one level",
    "TR-DETR",
    "HERO-TR-DETR",
)
"""Cases whose gradient on two processes is that of one; docs/guide/distributed.md says why the others' is not."""


def cases(root: Path) -> dict[str, dict[str, object]]:
    """Settings of trainings, by name; the videos of a batch have the same length unless it says "padded"."""
    files, published = write_files(root / "data"), write_published(root / "published")
    return {
        "EMB": files.settings(base_only=True, **SAME_LENGTH),
        "EMB, padded": files.settings(base_only=True),
        "HERO-EMB": files.settings(hero=HERO, **SAME_LENGTH),
        "HERO-EMB, padded": files.settings(hero=HERO),
        "HERO-EMB, noise, weights of the query": files.settings(
            hero={**HERO, "level_weights": "query", "perturb": "noise"}, **SAME_LENGTH
        ),
        "HERO-EMB, literal paper": files.settings(paper=True, hero={**HERO, "consistency": "bernoulli"}, **SAME_LENGTH),
        "Moment-DETR, padded": published.settings("moment_detr", base_only=True),
        "HERO-Moment-DETR, padded": published.settings("moment_detr", hero=HERO, contrastive_align_loss=True),
        "QD-DETR": detr_settings(files, "qd_detr", base_only=True, **SAME_LENGTH),
        "QD-DETR, one decoder layer": detr_settings(files, "qd_detr", base_only=True, dec_layers=1, **SAME_LENGTH),
        "QD-DETR, padded": detr_settings(files, "qd_detr", base_only=True),
        "HERO-QD-DETR, one level": detr_settings(files, "qd_detr", hero={**HERO, "levels": 1}, **SAME_LENGTH),
        "HERO-QD-DETR": detr_settings(files, "qd_detr", hero=HERO, **SAME_LENGTH),
        "TR-DETR": detr_settings(files, "tr_detr", base_only=True, **SAME_LENGTH),
        "TR-DETR, padded": detr_settings(files, "tr_detr", base_only=True),
        "HERO-TR-DETR": detr_settings(files, "tr_detr", hero=HERO, **SAME_LENGTH),
    }


def start(work: Callable[..., None], *args: Any) -> Any:
    """Two processes that call ``work(rank, *args)``; the context that waits for them."""
    return multiprocessing.spawn(_enter, (work, free_port(), args), nprocs=2, join=False)


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _enter(index: int, work: Callable[..., None], port: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    work(Rank.of_this_process(), *args)


def built(settings: dict[str, object], folder: Path) -> tuple[Any, list[Any]]:
    """The task of a training without dropout and in float64, and its examples."""
    config = config_from({**settings, "output": str(folder)}, "test").checked()
    base, data = BASES[config.base], read(config, QUIET)
    bank = data.bank("float32", 1.0, QUIET)
    folder.mkdir(exist_ok=True)
    vocabulary = run_vocabulary(config, data, RunFolder(folder))
    torch.manual_seed(0)
    task = base.new_task(config, data, bank, vocabulary, CPU)
    task.model.double()
    for module in (*task.model.modules(),):
        for name in ("p", "dropout", "attn_dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)
    with torch.no_grad():  # away from the identity, or the levels and the masked words would hardly count
        for parameter in task.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return task, base.examples(config, data, "train", bank, vocabulary, for_training=True)


def gradients(task: Any, chosen: list[Any], step: int, group: Group) -> dict[str, Tensor]:
    """Gradients of all parameters that learn, and the losses, of one step on the chosen examples."""
    module = group.parallel(TrainingStep(task, 0, group), [f"model.{name}" for name in task.unused_parameters])
    task.model.train()
    task.model.zero_grad(set_to_none=True)
    batch = task.collate(chosen, BatchShard.of(len(chosen), group.rank, task.following_rows).rows)
    batch = {name: each.double() if each.is_floating_point() else each for name, each in batch.items()}
    losses = module(batch, len(chosen), step, 0)
    (losses["loss"] * group.size).backward()
    learned = {name: each.grad for name, each in task.model.named_parameters() if each.requires_grad}
    assert {name for name, each in learned.items() if each is None} == set(task.unused_parameters)
    learned = {name: each for name, each in learned.items() if each is not None}
    return {**learned, **{f"{LOSSES}{name}": each.detach() for name, each in losses.items()}}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def of_losses(made: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(LOSSES) :]: each for name, each in made.items() if name.startswith(LOSSES)}


def of_parameters(made: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each for name, each in made.items() if not name.startswith(LOSSES)}


SIZES = (7, 1)
"""Rows of the batches: unequal shares, and a process without any."""


def every_gradient(cases: dict[str, dict[str, object]], folder: Path, group: Group) -> dict[str, Any]:
    made = {}
    for name, settings in cases.items():
        task, examples = built(settings, folder / f"{group.size}{group.rank.index}")
        made[name] = [gradients(task, examples[:size], size, group) for size in SIZES]
    return made


def everything(rank: Rank, folder: Path, cases: dict[str, dict[str, object]], port: str) -> None:
    """What needs two processes that live to the end; ``folder`` has what the tests look at."""
    with joined(rank, CPU) as group:
        torch.save(every_gradient(cases, folder, group), folder / f"gradients{rank.index}.pt")
        fit(trainer(folder / "whole", TOY, count=COUNT, group=group))
        for at in (0, 3, 7):
            interrupted(folder / f"stopped{at}", at, 0.3, group)
            fit(trainer(folder / f"stopped{at}", TOY, count=COUNT, resume=True, group=group))
        fit(trainer(folder / "two", TOY, count=COUNT, dropout=0.0, group=group))
        interrupted(folder / "two-one", 6, 0.0, group)
        fit(trainer(folder / "one-two", TOY, count=COUNT, dropout=0.0, resume=True, group=group))
        said = predict_set(seeded_toy(), items(11), 2, clips=True, group=group)
        torch.save([said.moments, said.scores, *said.relevance], folder / f"grounded{rank.index}.pt")
    os.environ["MASTER_PORT"] = port
    try:
        with joined(rank, CPU, timedelta(seconds=2)) as group:
            time.sleep(0 if group.leads else 4)
            group.wait()
    except PeerLost as error:
        (folder / f"hangs{rank.index}.txt").write_text(str(error), "utf-8")
        end_at_once(0)


def seeded_toy() -> ToyTask:
    torch.manual_seed(0)
    return ToyTask()


def interrupted(folder: Path, at: int, dropout: float, group: Group) -> None:
    """A run that the last process is told to stop in a step."""
    made = trainer(folder, TOY, count=COUNT, dropout=dropout, group=group)
    losses = made.task.losses

    def stops(model: nn.Module, batch: Any, epoch: int) -> Any:
        if len(made.task.steps) == at and group.rank.index == group.size - 1:
            signal.raise_signal(signal.SIGTERM)
        return losses(model, batch, epoch)

    made.task.losses = stops
    with suppress(Interrupted):
        fit(made)
        raise AssertionError("nobody stopped")
    assert made.progress.epoch * len(made.order) + made.progress.step == at + 1


def one_fails(rank: Rank, folder: Path) -> None:
    """The last process fails in its fourth step; the leading one writes what it is told."""
    try:
        with joined(rank, CPU) as group:
            made = trainer(folder / "fails", TOY, group=group)
            losses = made.task.losses

            def fails(model: nn.Module, batch: Any, epoch: int) -> Any:
                if len(made.task.steps) == 3 and not group.leads:
                    raise ZeroDivisionError
                return losses(model, batch, epoch)

            made.task.losses = fails
            fit(made)
    except PeerLost as error:
        (folder / f"{rank.index}.txt").write_text(str(error), "utf-8")
        end_at_once(2)
