"""The smallest task that the engine can train: it finishes an epoch in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.distributed import ALONE, Group
from hero_plugin.integrations.training.engine import Trainer
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Batch, Grounded, Prediction, Task
from tests.screen import QUIET

RECIPE = TrainConfig(epochs=3, batch_size=4, eval_batch_size=3, lr=0.05, seed=1)


@dataclass(frozen=True)
class Item:
    clips: Tensor
    start: float
    end: float


class ToyCollate:
    parallelizable = True

    def __call__(self, items: Sequence[Item], rows: Sequence[int] | None = None) -> Batch:
        clips = nn.utils.rnn.pad_sequence([item.clips for item in items], batch_first=True)
        return {
            "clips": clips if rows is None else clips[list(rows)],
            "moments": torch.tensor([[item.start, item.end] for item in items]),
        }

    def clips(self, item: Item) -> int:
        return len(item.clips)


class ToyTask(Task):
    """Predicts a moment from the mean clip, through dropout, so that it depends on the random state."""

    collate = ToyCollate()

    def __init__(self, dropout: float = 0.3) -> None:
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))
        self.steps: list[int] = []

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        self.steps.append(epoch)
        error = (model(batch["clips"].mean(1)) - batch["moments"]) ** 2
        return {"loss": error.mean(), "loss_start": error[:, 0].mean()}

    def predict(self, model: nn.Module, batch: Batch) -> Prediction:
        moments = model(batch["clips"].mean(1)).sort(dim=1).values
        return Prediction(moments[:, None], torch.ones(len(moments), 1), batch["clips"].mean(-1).sigmoid())

    def truth(self, item: Item) -> Sequence[tuple[float, float]]:
        return ((item.start, item.end),)

    def prediction_lines(self, name: str, items: Sequence[Item], grounded: Grounded) -> list[dict[str, Any]]:
        return [{"set": name, "moment": moment[0].tolist()} for moment in grounded.moments]

    def gauges(self, model: nn.Module) -> dict[str, list[float]]:
        return {"level_weights": model[-1].bias.tolist()}


def items(count: int, seed: int = 0) -> list[Item]:
    random = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(2, 6, (), generator=random))
        clips = torch.randn(length, 4, generator=random)
        start = float(clips.mean())
        made.append(Item(clips, start, start + 1.0 + float(clips[0, 0].abs())))
    return made


def trainer(
    folder: Path,
    recipe: TrainConfig = RECIPE,
    *,
    resume: bool = False,
    dropout: float = 0.3,
    count: int = 18,
    group: Group = ALONE,
) -> Trainer:
    """A fresh process' view of the run in ``folder``: new weights from the seed, then whatever is to be resumed."""
    settings = {"epochs": recipe.epochs}
    run = group.from_leader(lambda: RunFolder.create(folder, settings, resume=resume, overwrite=False))
    torch.manual_seed(recipe.seed)
    made = Trainer(ToyTask(dropout), recipe, items(count), run, QUIET, group)
    if resume:
        made.restore()
    return made


def fit(made: Trainer) -> None:
    made.fit({"val": items(5, seed=1), "test": items(7, seed=2)}, select="val")
