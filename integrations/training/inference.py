"""Inference over a whole set of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from hero_plugin.integrations.scoring.metrics import recall_at
from hero_plugin.integrations.training.batching import batches, length_sorted
from hero_plugin.integrations.training.device import Amp, autocast
from hero_plugin.integrations.training.distributed import ALONE, Group
from hero_plugin.integrations.training.task import Grounded, Task


@torch.no_grad()
def predict_set(
    task: Task,
    items: Sequence[Any],
    batch_size: int = 64,
    *,
    amp: Amp = "none",
    workers: int = 0,
    clips: bool = False,
    after_batch: Callable[[], None] = lambda: None,
    group: Group = ALONE,
) -> Grounded:
    """Predict every item, in batches of like length. The model is left in eval mode.

    Args:
        task: The task, with its model.
        items: Its examples.
        batch_size: Queries per batch.
        amp: Number format of the forward.
        workers: Loading processes.
        clips: Keep the scores of clips as well.
        after_batch: Called after each batch, equally often in every process; what it raises ends the evaluation.
        group: Processes that take turns with the batches; each gets all predictions.
    """
    model = task.model.eval()
    device = next(model.parameters()).device
    lengths = [task.collate.clips(item) for item in items]
    if not items:
        return Grounded(np.zeros((0, 1, 2)), np.zeros((0, 1)), [])
    indices = length_sorted(lengths, batch_size)
    turns = [indices[start :: group.size] for start in range(group.size)]
    mine = turns[group.rank.index]
    moments: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    relevance: list[np.ndarray] = []
    saliency: list[np.ndarray] = []
    for batch in batches(task.collate, items, mine, device, workers):
        with autocast(amp, device):
            prediction = task.predict(model, batch)
        moments.append(prediction.moments)
        scores.append(prediction.scores)
        if clips:
            relevance.extend(prediction.relevance.float().cpu().numpy())
        if clips and prediction.saliency is not None:
            saliency.extend(prediction.saliency.float().cpu().numpy())
        after_batch()
    if len(mine) < len(turns[0]):
        after_batch()
    # Read once, at the end: until here nothing waited for the device.
    read = [[torch.cat(each).cpu().double().numpy()] if mine else [] for each in (moments, scores)]
    said = [[*chain(*parts)] for parts in zip(*group.gather([*read, relevance, saliency]), strict=True)]
    back = np.argsort([index for turn in turns for chunk in turn for index in chunk])
    curves = ([each[place][: lengths[index]] for index, place in enumerate(back)] if each else [] for each in said[2:])
    return Grounded(np.concatenate(said[0])[back], np.concatenate(said[1])[back], *curves)


CURVE = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds of the recall curve: 0.05 to 0.95."""


def recall_curve(ious: np.ndarray) -> list[float]:
    """Return R1 in percent at each threshold of ``CURVE``."""
    return [round(recall_at(ious, threshold), 3) for threshold in CURVE]
