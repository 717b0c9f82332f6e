"""Summary of a sweep as tables and figures: every variant on every set, and what one gains over another.

Rows are as in ``results.json``: ``{variant: {"seeds": [...], metric: {"values", "mean", "std"}}}`` per set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from hero_plugin.integrations.scoring.trainings import CONFIDENCE, METRICS, pair_name, trainings_table
from hero_plugin.integrations.support.plotting import BASE, HERO, INK, SETTINGS, new_figure, save_figure, write_note


def sweep_markdown(results: Mapping[str, Any]) -> str:
    """Return a table of all sets: mean and sample standard deviation over the seeds, in percent, and differences."""
    return (trainings_table(results).markdown() if results["sets"] else "No run is finished yet.") + "\n"


def draw_sweep(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw a figure per metric that ``results.json`` holds, as ``folder/METRIC.png``."""
    known = {metric for rows in results["sets"].values() for row in rows.values() for metric in row}
    return [
        save_figure(metric_figure(results, metric), folder / (re.sub(r"[^\w.-]+", "_", metric) + ".png"))
        for metric in METRICS
        if metric in known
    ]


def metric_figure(results: Mapping[str, Any], metric: str) -> Figure:
    """Draw one metric, sets side by side: the variants' scores, and below them the pairs' differences, if any.

    Args:
        results: as in ``results.json``.
        metric: one of ``METRICS``.
    """
    sets = {name: rows for name, rows in results["sets"].items() if any(metric in row for row in rows.values())}
    pairs = {name: [each for each in results["differences"].get(name, []) if metric in each] for name in sets}
    # A variant that does not run on every set keeps its line in all, so that lines can be compared across.
    variants = list(dict.fromkeys(name for rows in sets.values() for name in rows))
    labels = list(dict.fromkeys(pair_name(each) for found in pairs.values() for each in found))
    heights = [len(names) for names in (variants, labels) if names]
    # The bases: variants that others are compared with and that are compared with none.
    every = [each for found in results["differences"].values() for each in found]
    bases = {each["minus"] for each in every} - {each["variant"] for each in every}
    with mpl.rc_context(SETTINGS):
        width = 0.4 + 0.09 * max(map(len, (*variants, *labels))) + 2.9 * len(sets)
        figure, axes = new_figure(
            width, 1.1 + sum(0.75 + 0.27 * height for height in heights), len(heights), len(sets),
            sharey="row", height_ratios=[2.0 + height for height in heights],
        )  # fmt: skip
        for column, (name, rows) in enumerate(sets.items()):
            scores = axes[0][column]
            for variant, row in rows.items():
                if metric in row:
                    std, color = row[metric]["std"], BASE if variant in bases else HERO
                    _draw_line(scores, variants.index(variant), row[metric], None if std is None else (std, std), color)
            scores.set_title(name)
            scores.set_xlabel(f"{metric}, percent")
            if labels:
                gains = axes[1][column]
                gains.axvline(0, color=INK, linewidth=0.9)
                for each in pairs[name]:
                    mean, interval = each[metric]["mean"], each[metric]["interval"]
                    spread = (mean - interval[0], interval[1] - mean) if interval else None
                    decided = interval is not None and (interval[0] > 0 or interval[1] < 0)
                    color = HERO if mean > 0 else BASE
                    _draw_line(gains, labels.index(pair_name(each)), each[metric], spread, color, hollow=not decided)
                gains.set_xlabel("difference, points")
        for axis in axes[1] if labels else []:  # the same scale: what is large on one set is so on the next
            axis.set_xlim(min(each.get_xlim()[0] for each in axes[1]), max(each.get_xlim()[1] for each in axes[1]))
        for row, names in zip(axes, (variants, labels), strict=False):
            row[0].set_yticks(range(len(names)), names, color=INK)
            row[0].set_ylim(len(names) - 0.4, -0.6)
            for axis in row:
                axis.grid(axis="y", visible=False)
        figure.suptitle(f"{metric}, {results['checkpoint']} checkpoint", x=0.01, ha="left", fontweight="bold")
        write_note(figure, _caption(results, bool(labels)))
        return figure


def _draw_line(
    axis: Any, place: int, row: Mapping[str, Any], spread: tuple[float, float] | None, color: str, hollow: bool = False
) -> None:
    """Draw a mean as a point with what is around it, and the single seeds as pale points below."""
    values = row["values"]
    if len(values) > 1:
        axis.plot(values, [place + 0.22] * len(values), "o", color=color, alpha=0.4, markersize=3.5, markeredgewidth=0)
    around = None if spread is None else [[spread[0]], [spread[1]]]
    style = {"fmt": "o", "color": color, "markersize": 5.5, "elinewidth": 1.5, "capsize": 2.5}
    axis.errorbar(row["mean"], place, xerr=around, markerfacecolor="white" if hollow else color, **style)


def _caption(results: Mapping[str, Any], compared: bool) -> str:
    seeds = sorted({len(row["seeds"]) for rows in results["sets"].values() for row in rows.values()})
    many = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    parts = [f"mean and standard deviation over {many} seed{'s' * (seeds[-1] > 1)}; pale: single seeds"]
    if compared:
        parts.append(f"Differences: {CONFIDENCE} % interval of a paired t-test, filled where it excludes 0")
    return ". ".join(parts)
