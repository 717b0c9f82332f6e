"""Figures of a run: losses, recall, weights of the levels, and moments predicted for single queries."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hero_plugin.integrations.data import Record, Vocabulary
from hero_plugin.integrations.scoring.metrics import SCORES, temporal_iou
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.support.plotting import BASE, CYCLE, HERO, MUTED, SETTINGS, TRUTH, new_figure, save_figure
from hero_plugin.integrations.training.batching import predict_set
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData
from hero_plugin.integrations.training.distributed import choose_device
from hero_plugin.integrations.training.engine import CURVE
from hero_plugin.integrations.training.load_run import data_of, load_run
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Grounded, Task

PART = re.compile(r"loss_[a-z_]+")
"""Losses that get a curve: not the DETRs' of earlier decoder layers, which have a number behind."""
History = Sequence[Mapping[str, Any]]


def draw_run(
    run: RunFolder,
    task: Task,
    sets: Mapping[str, Sequence[Any]],
    data: GroundingData,
    vocabulary: Vocabulary,
    config: TrainConfig,
    screen: Screen,
) -> None:
    """Draw the log and, from the last test set, a few queries with the best weights of the run.

    The run that ``config.compare`` names, usually the base, is drawn beside it where possible: a run that cannot read
    these queries is left out, with a message.
    """
    history = run.history()
    compared = RunFolder.open(config.compare) if config.compare else None
    names = (config.model_name, compared.settings().model_name if compared else "")
    if compared and names[0] == names[1]:
        names = (run.path.name, compared.path.name)
    with mpl.rc_context(SETTINGS):
        figures = {
            "losses.png": losses_figure(history) if history[0]["losses"] else None,
            "recall.png": recall_figure(history, compared.history() if compared else None, names),
            "levels.png": levels_figure(history),
        }
        for name, figure in figures.items():
            if figure is not None:
                save_figure(figure, run.figures / name)
        if not (items := _spread(sets, config.figure_queries)):
            return
        task.model.load_state_dict(load_checkpoint(run.best)["model"])
        models = [(names[0], HERO, predict_set(task, items, amp=config.amp, clips=True))]
        if compared:
            records, bank = [item.record for item in items], task.collate.bank
            try:
                models.insert(0, (names[1], BASE, _predict_by(compared, records, data, bank, config, screen)))
            except (UserError, DataError, OSError) as error:  # its files may be gone, or lack a video
                screen.say(f"the query figures leave {names[1]} out: {error}")
        for index, item in enumerate(items):
            record, unseen = item.record, vocabulary.unseen(data.tokenize(item.record.sentence))
            views = [
                ModelView(name, color, tuple(found.moments[index, 0]), found.relevance[index])
                for name, color, found in models
            ]
            figure = query_figure(record, views, f"never trained on: {', '.join(unseen)}" if unseen else "")
            file = f"{index + 1:02d}_" + re.sub(r"[^\w.-]+", "_", record.query_id) + ".png"
            save_figure(figure, run.figures / "queries" / file)


def _spread(sets: Mapping[str, Sequence[Any]], count: int) -> list[Any]:
    """Choose queries spread evenly over the last test set: neither the best ones nor the worst."""
    tests = [items for name, items in sets.items() if name != "val" and items] or list(sets.values())
    if not tests or not tests[-1] or count < 1:
        return []
    places = np.linspace(0, len(tests[-1]) - 1, min(count, len(tests[-1])))
    return [tests[-1][place] for place in np.unique(places.round().astype(int))]


def _predict_by(
    compared: RunFolder, records: list[Record], data: GroundingData, bank: Any, config: TrainConfig, screen: Screen
) -> Grounded:
    """Predict the same queries by another run, as it reads and answers them; what is read alike is not read again."""
    settings = compared.settings()
    compared.check_origins(settings)
    if config.reads_as(settings):
        data = replace(data, sets={"records": records})
    else:
        data, bank = data_of(settings, records), None
    theirs = load_run(compared, data, screen, bank=bank, device=choose_device(config.device))
    return predict_set(theirs.task, theirs.sets["records"], amp=settings.amp, clips=True)


def losses_figure(history: History) -> Figure:
    """Draw the total loss within the epochs, and each of its parts by epoch."""
    parts = [name for name in history[0]["losses"] if PART.fullmatch(name)]
    figure, axes = new_figure(9.5, 4.0, 1, 2)
    total, split = axes[0]
    per_epoch = history[0]["step"]
    points = [(step / per_epoch, loss) for line in history for step, loss in line["curve"]]
    total.plot(*zip(*points, strict=True), color=CYCLE[0], alpha=0.45, linewidth=1, label="tenths of an epoch")
    middles = [epoch - 0.5 for epoch in _epochs(history)]
    total.plot(middles, [line["losses"]["loss"] for line in history], color=CYCLE[0], label="epoch mean")
    total.set(title="Training loss", xlabel="epochs", ylabel="total loss")
    total.legend()
    for name in parts:
        values = [line["losses"][name] for line in history]
        split.plot(_epochs(history), values, marker=_marker(history), markersize=3, label=name.removeprefix("loss_"))
    split.set(title="Its parts, unweighted", xlabel="epoch", ylabel="loss (log scale)", yscale="log")
    figure.legend(*split.get_legend_handles_labels(), loc="outside lower right", ncols=len(parts))
    _whole_epochs(split)
    return figure


def recall_figure(history: History, compared: History | None, names: tuple[str, str]) -> Figure | None:
    """Draw the scores of every set over the epochs, and R1 by required overlap at the epoch whose weights are kept.

    That is the best on the set val, and is marked; without that set it is the last. The curves of the log ``compared``
    are dashed; ``names`` are those of the two runs. None for a run without scores.
    """
    scored = [line for line in history if line["metrics"]]
    if not scored:
        return None
    sets = list(scored[-1]["metrics"])
    columns = len(sets) + 1
    figure, axes = new_figure(3.5 * columns, 4.0, 1, columns, sharey=True)
    kept, best = ("best", history[-1]["best_epoch"]) if "val" in sets else ("last", None)
    for axis, dataset in zip(axes[0], sets, strict=False):
        for color, metric in zip(CYCLE, SCORES, strict=False):
            style = "-" if metric.startswith("R1") else ":"
            values = [line["metrics"][dataset][metric] for line in scored]
            axis.plot(_epochs(scored), values, style, marker=_marker(scored), markersize=3, color=color, label=metric)
        if best:
            axis.axvline(best, color=MUTED, linewidth=0.8, linestyle="--")
            axis.annotate(" best", (best, 100), color=MUTED, fontsize=8, va="top", ha="left")
        axis.set(title=dataset, xlabel="epoch", ylim=(0, 100))
        _whole_epochs(axis)
    axes[0][0].set_ylabel("percent")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower left", ncols=len(SCORES))
    last = axes[0][-1]
    # Colours of their own: to the left, a colour is a metric, and here it is a set.
    for color, dataset in zip(CYCLE[len(SCORES) :], sets, strict=False):
        last.plot(CURVE, _best(history)["recall"][dataset], color=color, label=f"{dataset}, {names[0]}")
        other = _best(compared)["recall"].get(dataset) if compared else None
        if other:
            last.plot(CURVE, other, "--", color=color, label=f"{dataset}, {names[1]}")
    last.set(
        title="By required overlap", xlabel="IoU threshold", ylabel=f"R1 of the {kept} epoch, percent", xlim=(0, 1)
    )
    last.legend()
    return figure


def levels_figure(history: History) -> Figure | None:
    """Draw the aggregation weight of each level over the epochs; None for a run without levels."""
    weights = [line["gauges"].get("level_weights", []) for line in history]
    if len(weights[0]) < 2:
        return None
    figure, axes = new_figure(5.6, 4.0)
    axis = axes[0][0]
    for level, values in enumerate(zip(*weights, strict=True)):
        axis.plot(_epochs(history), values, marker=_marker(history), markersize=3, label=f"level {level}")
    axis.axhline(1 / len(weights[0]), color=MUTED, linewidth=0.8, linestyle="--")
    at = (1.0, 1 / len(weights[0]))
    axis.annotate(" equal", at, xycoords=("axes fraction", "data"), color=MUTED, fontsize=8, va="center")
    axis.set(title="How much each level counts", xlabel="epoch", ylabel="aggregation weight")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower left", ncols=min(8, len(weights[0])))
    _whole_epochs(axis)
    return figure


def _best(history: History) -> Mapping[str, Any]:
    return history[history[-1]["best_epoch"] - 1]


def _epochs(history: History) -> list[int]:
    return [line["epoch"] for line in history]


def _marker(history: History) -> str | None:
    return "o" if len(history) <= 30 else None


def _whole_epochs(axis: Any) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


@dataclass(frozen=True)
class ModelView:
    """One model's prediction for a query."""

    name: str
    color: str
    moment: tuple[float, float]
    """Seconds."""
    relevance: np.ndarray
    """(clips,) in [0, 1]."""


def query_figure(record: Record, views: Sequence[ModelView], note: str = "") -> Figure:
    """Draw relevance curves above moments, over seconds; ``note`` says more about the query, such as its new words."""
    truth, duration = record.moments, record.duration
    bars = 1 + len(views)
    figure, axes = new_figure(8, 2.9 + 0.32 * bars, 2, 1, sharex=True, height_ratios=(3.2, 0.55 * bars + 0.3))
    curve, line = axes[0][0], axes[1][0]
    for start, end in truth:
        curve.axvspan(start, end, color=TRUTH, alpha=0.1, linewidth=0)
        line.axvspan(start, end, color=TRUTH, alpha=0.1, linewidth=0)
        line.barh(0, end - start, left=start, height=0.55, color=TRUTH)
    for place, view in enumerate(views, 1):
        edges = np.linspace(0, duration, len(view.relevance) + 1)
        curve.stairs(view.relevance, edges, color=view.color, baseline=None, linewidth=1.8, label=view.name)
        start, end = view.moment
        line.barh(place, end - start, left=start, height=0.55, color=view.color)
        overlap = max((float(temporal_iou(view.moment, each)) for each in truth), default=float("nan"))
        at = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9, "color": view.color}
        line.annotate(f"IoU {overlap:.2f}", (1.01, place), **at)
    sentence = textwrap.fill(f"“{record.sentence}”", 88)
    figure.suptitle(sentence, x=0.01, ha="left", fontsize=11, fontweight="bold")
    source = f"video {record.video_id}, query {record.query_id}" + (f"   ·   {note}" if note else "")
    curve.set_title(source, fontsize=9, fontweight="normal", color=MUTED)
    curve.set(ylabel="clip relevance", ylim=(0, 1.02), xlim=(0, duration))
    curve.legend(loc="upper right", ncols=len(views))
    line.set(xlabel="seconds", ylim=(bars - 0.4, -0.6))
    line.set_yticks(range(bars), ["annotated", *(view.name for view in views)])
    line.grid(axis="y", visible=False)
    line.tick_params(axis="y", length=0)
    return figure
