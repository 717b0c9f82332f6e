"""The common style of all figures. Drawn with Agg alone: it needs no display and touches no global state."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from hero_plugin.integrations.support.files import atomic_write

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
    """Write a PNG, whole or not at all."""
    with atomic_write(path, "wb", durable=False) as stream:
        figure.savefig(stream, format="png", dpi=130, facecolor="white")
    return path
