"""Figure of the scores of old and new words over the vocabularies learned."""

from __future__ import annotations

from matplotlib.figure import Figure

from hero_plugin.integrations.adapt.measures import ScoreMatrix
from hero_plugin.integrations.figures.style import CYCLE, MUTED, new_figure

SHOWN = ("R1@0.5", "mIoU")


def adaptation_figure(matrix: ScoreMatrix) -> Figure:
    """Draw one line per set, old ones dashed, over the stages; a ring marks when a set's own words were learned."""
    figure, axes = new_figure(4.6 * len(SHOWN), 4.0, 1, len(SHOWN))
    steps = range(len(matrix.rows))
    for axis, metric in zip(axes[0], SHOWN, strict=True):
        for color, name in zip(CYCLE * 4, (*matrix.new, *matrix.old), strict=False):
            values = [row[name][metric] for row in matrix.rows]
            style = "--" if name in matrix.old else "-"
            label = f"{name}, old words" if name in matrix.old else name
            axis.plot(steps, values, style, marker="o", markersize=4, color=color, label=label)
            if name in matrix.new:
                learned = matrix.new.index(name) + 1
                axis.plot(learned, values[learned], "o", markersize=11, fillstyle="none", color=color)
            change = f" {values[-1] - values[0]:+.1f}"
            axis.annotate(
                change,
                (steps[-1], values[-1]),
                color=MUTED,
                fontsize=8,
                va="center",
                xytext=(6, 0),
                textcoords="offset points",
            )
        axis.set_xticks(steps, ["start", *(f"+ {name}" for name in matrix.new)])
        axis.set(title=metric, xlim=(-0.15, len(matrix.rows) - 0.65))
    axes[0][0].set_ylabel("percent")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
    return figure
