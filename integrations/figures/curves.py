"""Figures of a run's log: losses, recall, and the weights of the levels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hero_plugin.integrations.figures.style import CYCLE, MUTED, new_figure
from hero_plugin.integrations.grounding import CURVE
from hero_plugin.metrics import SCORES

PART = re.compile(r"loss_[a-z_]+")
"""Losses that get a curve: not the DETRs' of earlier decoder layers, which have a number behind."""
History = Sequence[Mapping[str, Any]]


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
        split.plot(_epochs(history), values, marker=_marker(history), markersize=3, label=_plain(name))
    split.set(title="Its parts, unweighted", xlabel="epoch", ylabel="loss (log scale)", yscale="log")
    figure.legend(*split.get_legend_handles_labels(), loc="outside lower right", ncols=len(parts))
    _whole_epochs(split)
    return figure


def recall_figure(history: History, compared: History | None, names: tuple[str, str]) -> Figure | None:
    """Draw the scores of every set over the epochs, and R1 by required overlap at the best epoch.

    compared: the log of the run to compare with, whose curves are dashed. names: of the two runs.
    """
    scored = [line for line in history if line["metrics"]]
    if not scored:
        return None
    sets = list(scored[-1]["metrics"])
    columns = len(sets) + 1
    figure, axes = new_figure(3.5 * columns, 4.0, 1, columns, sharey=True)
    best = history[-1]["best_epoch"]
    for axis, dataset in zip(axes[0], sets, strict=False):
        for color, metric in zip(CYCLE, SCORES, strict=False):
            style = "-" if metric.startswith("R1") else ":"
            values = [line["metrics"][dataset][metric] for line in scored]
            axis.plot(_epochs(scored), values, style, marker=_marker(scored), markersize=3, color=color, label=metric)
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
    last.set(title="By required overlap", xlabel="IoU threshold", ylabel="R1 of the best epoch, percent", xlim=(0, 1))
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


def _plain(name: str) -> str:
    return name.removeprefix("loss_")


def _whole_epochs(axis: Any) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
