"""Summary of a sweep as tables and figures: every variant on every set, and what one gains over another.

Rows are as in ``results.json``: ``{variant: {"seeds": [...], metric: {"values", "mean", "std"}}}`` per set.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from scipy import stats

from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support.console import markdown_table
from hero_plugin.integrations.support.plotting import BASE, HERO, INK, SETTINGS, new_figure, save_figure, write_note

METRICS = (*SCORES, "MR-full-mAP", "HL-min-VeryGood-mAP")
"""What the tables have a column for, in this order: the last two on QVHighlights only."""
CONFIDENCE = 95


def summary(
    scores: Mapping[str, Mapping[str, Mapping[int, Mapping[str, float]]]], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Return the rows of every set, and the differences of the pairs.

    Args:
        scores: by set, variant, seed and metric.
        pairs: which variant minus which.
    """
    sets = {name: {variant: _row(seeds) for variant, seeds in rows.items()} for name, rows in scores.items()}
    return {"sets": sets, "differences": {name: compare(rows, pairs, METRICS) for name, rows in sets.items()}}


def _row(scores: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": list(scores)}
    for metric in METRICS:
        if values := [each[metric] for each in scores.values() if metric in each]:
            std = statistics.stdev(values) if len(values) > 1 else None
            row[metric] = {"values": values, "mean": statistics.fmean(values), "std": std}
    return row


def compare(
    rows: Mapping[str, Mapping[str, Any]], pairs: Sequence[tuple[str, str]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the first variant of each pair minus the second, on one set.

    The same seed gives both the same order of examples, so they are compared seed by seed.

    Returns:
        For each pair of which there is anything, ``{"variant", "minus", "seeds", metric: {"values", "mean", "interval",
        "p"}}``; the interval and the p are those of a paired t-test over the seeds that both have, None where fewer
        than two do or no two differences differ.
    """
    compared = []
    for variant, other in pairs:
        one, two = rows.get(variant), rows.get(other)
        if one is None or two is None:
            continue
        seeds = [seed for seed in one["seeds"] if seed in two["seeds"]]
        if not seeds:
            continue
        row: dict[str, Any] = {"variant": variant, "minus": other, "seeds": seeds}
        for metric in metrics:
            if metric in one and metric in two:
                row[metric] = _difference([_at(one, metric, s) - _at(two, metric, s) for s in seeds])
        compared.append(row)
    return compared


def _at(row: Mapping[str, Any], metric: str, seed: int) -> float:
    return row[metric]["values"][row["seeds"].index(seed)]


def _difference(values: Sequence[float]) -> dict[str, Any]:
    interval = p = None
    if len(set(values)) > 1:
        test = stats.ttest_1samp(values, 0.0)
        interval, p = [float(end) for end in test.confidence_interval(CONFIDENCE / 100)], float(test.pvalue)
    return {"values": list(values), "mean": statistics.fmean(values), "interval": interval, "p": p}


def sweep_markdown(results: Mapping[str, Any]) -> str:
    """Return a table per set: mean and sample standard deviation over the seeds, in percent, and differences."""
    parts = []
    for name, rows in results["sets"].items():
        text = f"**{name}**\n\n{_table('', rows, _score_cell)}"
        if differences := results.get("differences", {}).get(name):
            text += f"\n\n{differences_markdown(differences)}"
        parts.append(text)
    return "\n\n".join(parts or ["No run is finished yet."]) + "\n"


def differences_markdown(compared: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the differences: mean, its interval, and every seed's."""
    table = _table("difference", {_pair(each): each for each in compared}, _difference_cell)
    caption = f"Mean over the seeds, its {CONFIDENCE} % interval and p by a paired t-test, and each seed's difference."
    return f"{table}\n\n{caption}"


def _table(title: str, rows: Mapping[str, Mapping[str, Any]], cell: Callable[[Mapping[str, Any]], str]) -> str:
    metrics = [metric for metric in METRICS if any(metric in row for row in rows.values())]
    cells = [
        (name, *(cell(row[metric]) if metric in row else "-" for metric in metrics), str(len(row["seeds"])))
        for name, row in rows.items()
    ]
    return markdown_table((title, *metrics, "seeds"), cells)


def _score_cell(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.2f}" + ("" if score["std"] is None else f" ± {score['std']:.2f}")


def _difference_cell(difference: Mapping[str, Any]) -> str:
    text = f"{difference['mean']:+.2f}"
    if difference["interval"]:
        low, high = difference["interval"]
        text += f" [{low:+.1f}, {high:+.1f}], p {difference['p']:.2f}"
    return f"{text} ({', '.join(f'{value:+.1f}' for value in difference['values'])})"


def _pair(each: Mapping[str, Any]) -> str:
    return f"{each['variant']} minus {each['minus']}"


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
    labels = list(dict.fromkeys(_pair(each) for found in pairs.values() for each in found))
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
                    _draw_line(gains, labels.index(_pair(each)), each[metric], spread, color, hollow=not decided)
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
