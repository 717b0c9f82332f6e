"""The common style of all figures. Drawn with Agg alone: it needs no display and touches no global state."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from hero_plugin.integrations.support.files import atomic_write
from hero_plugin.integrations.support.tables import Cell, Row, Table

INK, MUTED, GRID = "#22262b", "#6b7280", "#e5e7eb"
HERO, BASE, TRUTH = "#0f766e", "#c2571a", "#334155"
"""The model that a run trained, the one it is compared with, and the annotation: the same in every figure."""
CYCLE = ("#0f766e", "#c2571a", "#4f5bd5", "#b8860b", "#a3386c", "#5b7f2b", "#2b7fb8", "#7a5195")

SETTINGS: Any = {  # matplotlib's own type lists every key that its version has
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=CYCLE),
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, Any]:
    """Return a figure of ``width`` by ``height`` inches and its axes, a (rows, columns) array."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def write_note(figure: Figure, text: str) -> None:
    """Write small print below a figure, in as many lines as its width takes."""
    lines = textwrap.wrap(text, int(16 * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), fontsize=8, color=MUTED, x=0.01, ha="left")


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PDF where the file's name says so, else a PNG, whole or not at all."""
    with atomic_write(path, "wb", durable=False) as stream:
        kind = "pdf" if path.suffix.lower() == ".pdf" else "png"
        figure.savefig(stream, format=kind, dpi=130, facecolor="white")
    return path


def table_figure(table: Table, color: Callable[[Row, Cell], str] | None = None, trainings: bool = False) -> Figure:
    """Draw a table: a panel for each column of figures, a line for each row, differences below with their intervals.

    A figure stands with its deviation, or its interval where there is none. A difference is hollow where its interval
    does not exclude 0. Unless ``color`` is given, each model has its own. ``trainings`` adds each as a pale point.
    """
    gains = [row for row in table.rows if any(each.difference for each in row.cells)]
    parts = [part for part in ([row for row in table.rows if row not in gains], gains) if part]
    named = [place for place, name in enumerate(table.labels) if name not in table.counts]
    # What is the same everywhere needs no label.
    named = [place for place in named if place == named[-1] or len({row.labels[place] for row in table.rows}) > 1]
    names = [[", ".join(row.labels[place] for place in named) for row in part] for part in parts]
    models = list(dict.fromkeys(row.labels[named[-1]] for row in parts[0]))

    def own(row: Row, cell: Cell) -> str:
        model = row.labels[named[-1]]
        return CYCLE[models.index(model) % len(CYCLE)] if model in models else INK

    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(
            0.4 + 0.085 * max(len(name) for part in names for name in part) + 2.5 * len(table.columns),
            1.2 + 0.27 * sum(map(len, parts)) + 0.5 * len(parts), len(parts), len(table.columns),
            sharey="row", height_ratios=[2.0 + len(part) for part in parts],
        )  # fmt: skip
        for row_axes, part, labels in zip(axes, parts, names, strict=True):
            for column, axis in enumerate(row_axes):
                for place, row in enumerate(part):
                    cell = row.cells[column]
                    _draw_cell(axis, place, cell, (color or own)(row, cell), trainings)
                axis.grid(axis="y", visible=False)
                axis.set_xlabel("difference, points" if part is not parts[0] else "percent")
            row_axes[0].set_yticks(range(len(part)), labels, color=INK)
            row_axes[0].set_ylim(len(part) - 0.4, -0.6)
        for axis, name in zip(axes[0], table.columns, strict=True):
            axis.set_title(name)
        for axis in axes[1] if len(parts) > 1 else ():
            axis.axvline(0, color=INK, linewidth=0.9)
        write_note(figure, table.caption)
        return figure


def _draw_cell(axis: Any, place: int, cell: Cell, color: str, trainings: bool) -> None:
    if cell.value is None:
        return
    if trainings and (count := len(cell.values)) > 1:
        axis.plot(cell.values, [place + 0.22] * count, "o", color=color, alpha=0.4, markersize=3.5, markeredgewidth=0)
    spread = None
    if cell.shows_std:
        spread = [[cell.std], [cell.std]]
    elif cell.interval is not None:  # a figure may lie outside its interval, by a little, where a group is tiny
        spread = [[max(cell.value - cell.interval[0], 0.0)], [max(cell.interval[1] - cell.value, 0.0)]]
    filled = cell.decided or not cell.difference
    style = {"fmt": "o", "color": color, "markersize": 5, "elinewidth": 1.5, "capsize": 2.5}
    axis.errorbar(cell.value, place, xerr=spread, markerfacecolor=color if filled else "white", **style)
