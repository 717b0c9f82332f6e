"""Draws what is gained over the base at R1@0.5, from gains.json: `python docs/figures/gains.py`.

new_words.png has known words beside new ones; gains.png has HERO by base and test set. The figures are those of the
page that each row names (tests/docs/test_form.py holds them together).
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hero_plugin.integrations.support.plotting import BASE, HERO, INK, MUTED, SETTINGS, new_figure, save_figure

HERE = Path(__file__).parent
PLACES = {"known": "test-ood as it is: words that training had", "new": "... reworded: words that it never had"}

INTERVALS = "95 % intervals over pairs of trainings (same seed)"


def main() -> list[Path]:
    """Draw both pictures; return their files."""
    rows = json.loads((HERE / "gains.json").read_text("utf-8"))
    with mpl.rc_context(SETTINGS):
        drawn = {"new_words.png": new_words(rows["new_words"]), "gains.png": by_set(rows["gains"])}
        return [save_figure(figure, HERE / name) for name, figure in drawn.items()]


def new_words(rows: list[dict[str, Any]]) -> Figure:
    """Draw each way to gain, on known words and on new ones."""
    bases, figure, axes = grid(rows, columns=2, width=11)
    for line, (base, members) in zip(axes, bases, strict=True):
        for axis, (place, title) in zip(line, PLACES.items(), strict=True):
            draw(axis, [(row["what"], row[place], "") for row in members])
            axis.set_title(base if place == "known" else "")
            if axis in axes[-1]:
                axis.set_xlabel(f"{title}\nR1@0.5 minus the plain base, points")
        line[1].set_yticklabels([])
    caption(figure, f"{INTERVALS}; filled: 0 excluded")
    return figure


def by_set(rows: list[dict[str, Any]]) -> Figure:
    """Draw all of HERO minus its base, by base and test set."""
    bases, figure, axes = grid(rows, columns=1, width=10.5)
    for (axis,), (base, members) in zip(axes, bases, strict=True):
        draw(axis, [(row["set"], row["gain"], f", {row['note']}") for row in members])
        axis.set_title(f"HERO-{base} minus {base}", fontsize=10)
    axes[-1, 0].set_xlabel("R1@0.5, points")
    caption(figure, f"{INTERVALS}, where said over videos, too; filled: 0 excluded")
    return figure


def grid(rows: list[dict[str, Any]], columns: int, width: float) -> tuple[list[tuple[str, list[Any]]], Figure, Any]:
    """Return the rows by base, and a figure with axes for each base."""
    bases = [(base, list(members)) for base, members in groupby(rows, lambda row: row["base"])]
    height = 1.2 + 0.3 * (len(rows) + 1.6 * len(bases))
    heights = [len(members) + 0.8 for _, members in bases]
    return bases, *new_figure(width, height, len(bases), columns, sharex=True, height_ratios=heights)


def draw(axis: Axes, rows: list[tuple[str, tuple[float, float, float], str]]) -> None:
    """Draw a mean with its interval for each (name, (mean, low, high), note)."""
    axis.axvline(0, color=INK, linewidth=0.9)
    for place, (_, (mean, low, high), note) in enumerate(rows):
        decided = low > 0 or high < 0
        axis.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], fmt="o", markersize=6, elinewidth=1.6, capsize=3,
            color=HERO if mean >= 0 else BASE, markerfacecolor=None if decided else "white",
        )  # fmt: skip
        axis.annotate(
            f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]{note}", (1.01, place), va="center", fontsize=8,
            xycoords=("axes fraction", "data"), color=INK if decided else MUTED,
        )  # fmt: skip
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows], color=INK, fontsize=9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)


def caption(figure: Figure, text: str) -> None:
    """Write small print below a figure."""
    figure.supxlabel(text, fontsize=8, color=MUTED, x=0.01, ha="left")


if __name__ == "__main__":
    print(*main(), sep="\n")
