"""A sweep's table as pictures: every variant on every set, and what one gains over another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from hero_plugin.integrations.figures.style import BASE, HERO, INK, MUTED, SETTINGS, new_figure, save_figure
from hero_plugin.integrations.sweep.paired import CONFIDENCE
from hero_plugin.integrations.sweep.table import METRICS, columns_of

__all__ = ["draw_sweep", "metric_figure"]


def draw_sweep(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """A picture for each metric that ``results.json`` holds, as ``folder/METRIC.png``."""
    known = {metric for rows in results["sets"].values() for metric in columns_of(rows)}
    return [
        save_figure(metric_figure(results, metric), folder / (re.sub(r"[^\w.-]+", "_", metric) + ".png"))
        for metric in METRICS
        if metric in known
    ]


def metric_figure(results: Mapping[str, Any], metric: str) -> Figure:
    """One metric: sets side by side; above the variants' scores, below the differences of the pairs, if there are any.

    results: as in ``results.json``. Pale points are single seeds.
    """
    sets = {name: rows for name, rows in results["sets"].items() if any(metric in row for row in rows.values())}
    pairs = {name: [each for each in results["differences"].get(name, []) if metric in each] for name in sets}
    # A variant that does not run on every set keeps its line in all, so that lines can be compared across.
    variants = list(dict.fromkeys(name for rows in sets.values() for name in rows))
    labels = list(dict.fromkeys(_label(each) for found in pairs.values() for each in found))
    heights = [len(variants), *([len(labels)] if labels else [])]
    plain = _plain(results)
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(
            2.2 + 2.9 * len(sets), 1.1 + sum(0.75 + 0.27 * height for height in heights), len(heights), len(sets),
            sharey="row", height_ratios=[2.0 + height for height in heights],
        )  # fmt: skip
        for column, (name, rows) in enumerate(sets.items()):
            scores = axes[0][column]
            for variant, row in rows.items():
                if metric in row:
                    spread = [row[metric]["std"]] * 2 if row[metric]["std"] is not None else None
                    color = BASE if variant in plain else HERO
                    _line(scores, variants.index(variant), row[metric]["mean"], spread, row[metric]["values"], color)
            scores.set_title(name)
            scores.set_xlabel(f"{metric}, percent")
            if labels:
                gains = axes[1][column]
                gains.axvline(0, color=INK, linewidth=0.9)
                for each in pairs[name]:
                    difference = each[metric]
                    mean, interval = difference["mean"], difference["interval"]
                    spread = [mean - interval[0], interval[1] - mean] if interval else None
                    decided = interval is not None and (interval[0] > 0 or interval[1] < 0)
                    place = labels.index(_label(each))
                    _line(gains, place, mean, spread, difference["values"], HERO if mean > 0 else BASE, not decided)
                gains.set_xlabel("difference, points")
        for axis in axes[1] if labels else []:  # the same scale: what is large on one set is so on the next
            axis.set_xlim(min(each.get_xlim()[0] for each in axes[1]), max(each.get_xlim()[1] for each in axes[1]))
        for row, names in zip(axes, (variants, labels), strict=False):
            row[0].set_yticks(range(len(names)), names, color=INK)
            row[0].set_ylim(len(names) - 0.4, -0.6)
            for axis in row:
                axis.grid(axis="y", visible=False)
        figure.suptitle(f"{metric}, {results['checkpoint']} checkpoint", x=0.01, ha="left", fontweight="bold")
        figure.supxlabel(_caption(results, bool(labels)), fontsize=8, color=MUTED, x=0.01, ha="left")
        return figure


def _line(
    axis: Any, place: int, mean: float, spread: Sequence[float] | None, values: Sequence[float], color: str,
    hollow: bool = False,
) -> None:  # fmt: skip
    """A point with what is around it, and the single seeds below."""
    if len(values) > 1:
        axis.plot(values, [place + 0.22] * len(values), "o", color=color, alpha=0.4, markersize=3.5, markeredgewidth=0)
    around = None if spread is None else [[spread[0]], [spread[1]]]
    style = {"fmt": "o", "color": color, "markersize": 5.5, "elinewidth": 1.5, "capsize": 2.5}
    axis.errorbar(mean, place, xerr=around, markerfacecolor="white" if hollow else color, **style)


def _plain(results: Mapping[str, Any]) -> set[str]:
    """Variants that others are compared with and that are compared with none: the bases."""
    every = [each for found in results["differences"].values() for each in found]
    return {each["minus"] for each in every} - {each["variant"] for each in every}


def _label(each: Mapping[str, Any]) -> str:
    return f"{each['variant']} minus {each['minus']}"


def _caption(results: Mapping[str, Any], compared: bool) -> str:
    seeds = sorted({len(row["seeds"]) for rows in results["sets"].values() for row in rows.values()})
    many = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    parts = [f"mean and standard deviation over {many} seed{'s' * (seeds[-1] > 1)}; pale: single seeds"]
    if compared:
        parts.append(f"differences: {CONFIDENCE} % interval of a paired t-test, filled where it excludes 0")
    return ". ".join(parts)
