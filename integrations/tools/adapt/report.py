"""Scores of an adaptation: gain on new words, loss on old ones, and measures of continual learning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.plotting import CYCLE, MUTED, new_figure
from hero_plugin.integrations.support.tables import Cell, Row, Table
from hero_plugin.integrations.training.task import Scores


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores of every set before, and after each vocabulary that was learned.

    The old words count as one task, the mean over their sets, and as the first; each vocabulary is one more.
    """

    old: Sequence[str]
    """Sets of old words."""
    new: Sequence[str]
    """The vocabularies, in the order of learning; also the names of their sets."""
    rows: Sequence[Mapping[str, Scores]]
    """(1 + vocabularies): scores by set."""

    def task(self, number: int, after: int, metric: str) -> float:
        """Return a_{k,j}: the score of task ``number`` (0: old words) after that many vocabularies."""
        names = self.old if number == 0 else [self.new[number - 1]]
        return fmean(self.rows[after][name][metric] for name in names)

    def average(self, metric: str) -> float:
        """Return A_k: the mean over all tasks at the end."""
        return fmean(self.task(number, -1, metric) for number in range(len(self.new) + 1))

    def forgetting(self, metric: str) -> float:
        """Return F_k (Chaudhry et al., ECCV 2018), negative where learning on has helped.

        Over the tasks before the last: the best that each scored since it was learned, minus what it scores at the end.
        """
        last = len(self.new)
        return fmean(
            max(self.task(number, after, metric) for after in range(number, last)) - self.task(number, last, metric)
            for number in range(last)
        )

    def change(self, name: str, metric: str) -> float:
        """Return the end minus the start."""
        return self.rows[-1][name][metric] - self.rows[0][name][metric]

    def gain(self, metric: str) -> float:
        """Return the change on new words: the mean over the vocabularies."""
        return fmean(self.change(name, metric) for name in self.new)

    def loss(self, metric: str) -> float:
        """Return the loss on old words, the mean over their sets; negative if they gained as well."""
        return -fmean(self.change(name, metric) for name in self.old)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        figures = ("gain", "loss", "average", "forgetting")
        return {
            "old": list(self.old),
            "new": list(self.new),
            "after": ["start", *self.new],
            "scores": [dict(row) for row in self.rows],
            **{name: {metric: round(getattr(self, name)(metric), 4) for metric in SCORES} for name in figures},
        }


def print_table(matrix: ScoreMatrix, screen: Screen) -> None:
    """Print the table on the terminal."""
    screen.show(replace(_table(matrix), title="gain on new words against loss on old ones").terminal())
    for metric in SCORES:
        screen.say(_sum(matrix, metric))


def matrix_markdown(matrix: ScoreMatrix) -> str:
    """Return the table in Markdown."""
    return "\n".join([_table(matrix).markdown(), "", *(f"* {_sum(matrix, metric)}" for metric in SCORES), ""])


def _table(matrix: ScoreMatrix) -> Table:
    rows = []
    for name in (*matrix.old, *matrix.new):
        kind = "old" if name in matrix.old else "new"
        for after, row in zip(("start", *matrix.new), matrix.rows, strict=True):
            rows.append(Row((name, kind, after), tuple(Cell.of(row[name][metric]) for metric in SCORES)))
        changes = tuple(Cell(matrix.change(name, metric), difference=True) for metric in SCORES)
        rows.append(Row((name, kind, "change"), changes))
    return Table(("set", "words", "after"), SCORES, rows)


def _sum(matrix: ScoreMatrix, metric: str) -> str:
    text = f"{metric}: new words {matrix.gain(metric):+.2f}, old words {-matrix.loss(metric):+.2f}"
    if len(matrix.new) > 1:
        text += f"; average {matrix.average(metric):.2f}, forgetting {matrix.forgetting(metric):.2f}"
    return text


def adaptation_figure(matrix: ScoreMatrix) -> Figure:
    """Draw one line per set, old ones dashed, over the stages; a ring marks when a set's own words were learned."""
    shown = ("R1@0.5", "mIoU")
    figure, axes = new_figure(4.6 * len(shown), 4.0, 1, len(shown))
    steps = range(len(matrix.rows))
    for axis, metric in zip(axes[0], shown, strict=True):
        for color, name in zip(CYCLE * 4, (*matrix.new, *matrix.old), strict=False):
            values = [row[name][metric] for row in matrix.rows]
            style, label = ("--", f"{name}, old words") if name in matrix.old else ("-", name)
            axis.plot(steps, values, style, marker="o", markersize=4, color=color, label=label)
            if name in matrix.new:
                learned = matrix.new.index(name) + 1
                axis.plot(learned, values[learned], "o", markersize=11, fillstyle="none", color=color)
            beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "color": MUTED, "fontsize": 8}
            axis.annotate(f" {values[-1] - values[0]:+.1f}", (steps[-1], values[-1]), **beside)
        axis.set_xticks(steps, ["start", *(f"+ {name}" for name in matrix.new)])
        axis.set(title=metric, xlim=(-0.15, len(matrix.rows) - 0.65))
    axes[0][0].set_ylabel("percent")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
    return figure
