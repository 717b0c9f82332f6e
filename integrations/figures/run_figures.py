"""Figures of a finished run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from hero_plugin.integrations.bases import config_from
from hero_plugin.integrations.checkpoints import load_checkpoint
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.data import GroundingData
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.figures.curves import levels_figure, losses_figure, recall_figure
from hero_plugin.integrations.figures.queries import ModelView, query_figure
from hero_plugin.integrations.figures.style import BASE, HERO, SETTINGS, save_figure
from hero_plugin.integrations.grounding import Grounded, predict_set
from hero_plugin.integrations.run_folder import RunFolder
from hero_plugin.integrations.task import Task
from hero_plugin.integrations.train_config import TrainConfig
from hero_plugin.integrations.vocabulary import Vocabulary


def draw_run(
    run: RunFolder,
    task: Task,
    sets: Mapping[str, Sequence[Any]],
    data: GroundingData,
    vocabulary: Vocabulary,
    config: TrainConfig,
    screen: Screen,
) -> list[Path]:
    """Draw the log and, from the last test set, a few queries with the best weights of the run.

    The run that ``config.compare`` names, usually the base, is drawn beside it where possible: a run on
    other features is left out, with a message.
    """
    history = run.history()
    compared = RunFolder.open(config.compare) if config.compare else None
    names = (config.model_name, "compared run")
    if compared is not None:
        names = (names[0], _name(compared))
        if names[0] == names[1]:
            names = (run.path.name, compared.path.name)
    with mpl.rc_context(SETTINGS):
        figures = {
            "losses.png": losses_figure(history),
            "recall.png": recall_figure(history, compared.history() if compared else None, names),
            "levels.png": levels_figure(history),
        }
        paths = [save_figure(figure, run.figures / name) for name, figure in figures.items() if figure is not None]
        items = _chosen(sets, config.figure_queries)
        if items:
            task.model.load_state_dict(load_checkpoint(run.best)["model"])
            views = [(names[0], HERO, predict_set(task, items, clips=True))]
            if compared is not None:
                try:
                    views.insert(0, (names[1], BASE, _ground_compared(compared, items, task, data, screen)))
                except UserError as error:
                    screen.say(f"the query figures leave {names[1]} out: {error}")
            notes = [_note(vocabulary.unseen(data.tokenize(item.record.sentence))) for item in items]
            paths += _draw_queries(run.figures / "queries", items, notes, views)
    return paths


def _draw_queries(
    folder: Path, items: Sequence[Any], notes: Sequence[str], models: Sequence[tuple[str, str, Grounded]]
) -> list[Path]:
    paths = []
    for index, item in enumerate(items):
        record = item.record
        views = [
            ModelView(name, color, tuple(grounded.moments[index, 0]), grounded.relevance[index])
            for name, color, grounded in models
        ]
        figure = query_figure(
            record.sentence,
            f"video {record.video_id}, query {record.query_id}",
            record.moments,
            record.duration,
            views,
            notes[index],
        )
        name = re.sub(r"[^\w.-]+", "_", record.query_id)
        paths.append(save_figure(figure, folder / f"{index + 1:02d}_{name}.png"))
    return paths


def _chosen(sets: Mapping[str, Sequence[Any]], count: int) -> list[Any]:
    """Choose queries spread evenly over the last test set: neither the best ones nor the worst."""
    tests = [items for name, items in sets.items() if name != "val" and items] or list(sets.values())
    if not tests or not tests[-1] or count < 1:
        return []
    items = tests[-1]
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


def _ground_compared(
    compared: RunFolder, items: Sequence[Any], task: Task, data: GroundingData, screen: Screen
) -> Grounded:
    """Predict the same queries by another run's model, in that run's own word ids."""
    from hero_plugin.integrations.evaluate import load_run

    records = [item.record for item in items]
    theirs = load_run(
        compared,
        replace(data, sets={"figures": records}),
        screen,
        bank=task.collate.bank,
        device=next(task.model.parameters()).device,
    )
    return predict_set(theirs.task, theirs.sets["figures"], clips=True)


def _note(unseen: Sequence[str]) -> str:
    return f"never trained on: {', '.join(unseen)}" if unseen else ""


def _name(run: RunFolder) -> str:
    return config_from(run.config(), str(run.config_file)).model_name
