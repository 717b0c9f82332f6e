"""Draws gains.png, HERO minus its base at R1@0.5, from gains.json: `python docs/figures/gains.py`.

The figures are those of the page that each row names (tests/docs/test_form.py holds them together).
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import matplotlib as mpl

from hero_plugin.integrations.support.plotting import BASE, HERO, INK, MUTED, SETTINGS, new_figure, save_figure

HERE = Path(__file__).parent


def main() -> Path:
    rows = json.loads((HERE / "gains.json").read_text("utf-8"))
    bases = [(base, list(members)) for base, members in groupby(rows, lambda row: row["base"])]
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(
            10.5, 1.2 + 0.3 * (len(rows) + 1.6 * len(bases)), len(bases), 1,
            sharex=True, height_ratios=[len(members) + 0.8 for _, members in bases],
        )  # fmt: skip
        for axis, (base, members) in zip(axes[:, 0], bases, strict=True):
            axis.axvline(0, color=INK, linewidth=0.9)
            for place, row in enumerate(members):
                mean, low, high = row["gain"]
                decided = low > 0 or high < 0
                axis.errorbar(
                    mean, place, xerr=[[mean - low], [high - mean]], fmt="o", markersize=6, elinewidth=1.6, capsize=3,
                    color=HERO if mean >= 0 else BASE, markerfacecolor=None if decided else "white",
                )  # fmt: skip
                axis.annotate(
                    f"{mean:+.1f} [{low:+.1f}, {high:+.1f}], {row['note']}", (1.01, place), va="center", fontsize=8,
                    xycoords=("axes fraction", "data"), color=INK if decided else MUTED,
                )  # fmt: skip
            axis.set_yticks(range(len(members)), [row["set"] for row in members], color=INK, fontsize=9)
            axis.set_ylim(len(members) - 0.4, -0.6)
            axis.set_title(f"HERO-{base} minus {base}", fontsize=10)
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0)
        axes[-1, 0].set_xlabel("R1@0.5, points")
        note = "95 % intervals over pairs of trainings (same seed), where said over videos, too; filled: 0 excluded"
        figure.supxlabel(note, fontsize=8, color=MUTED, x=0.01, ha="left")
        return save_figure(figure, HERE / "gains.png")


if __name__ == "__main__":
    print(main())
