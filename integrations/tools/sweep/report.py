"""A sweep's table as pictures: every variant on every set, and what one gains over another."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from scipy import stats

from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support.plotting import BASE, HERO, INK, MUTED, SETTINGS, new_figure, save_figure
from hero_plugin.integrations.tools.sweep.sweep import Plan, further_scores

# Two variants of a sweep compared seed by seed: the same seed gives both the same order of examples.


CONFIDENCE = 95


def compare(
    rows: Mapping[str, Mapping[str, Any]], pairs: Sequence[tuple[str, str]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """The first variant of each pair minus the second, on one set.

    rows: ``{variant: {"seeds": [...], metric: {"values": [...]}}}``, as ``results.json`` has them.

    Returns:
        For each pair of which there is anything, ``{"variant", "minus", "seeds", metric: {"values", "mean", "interval",
        "p"}}``; the interval and the p are those of a paired t-test over the seeds that both have, None where fewer
        than two do or no two differences differ.
    """
    compared = []
    for variant, other in pairs:
        if variant not in rows or other not in rows:
            continue
        one, two = rows[variant], rows[other]
        seeds = [seed for seed in one["seeds"] if seed in two["seeds"]]
        if not seeds:
            continue
        row: dict[str, Any] = {"variant": variant, "minus": other, "seeds": seeds}
        for metric in metrics:
            if metric in one and metric in two:
                row[metric] = _difference([_at(one, metric, s) - _at(two, metric, s) for s in seeds])
        compared.append(row)
    return compared


def paired_markdown(compared: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """A table of the differences: mean, its interval, and every seed's."""
    columns = [metric for metric in metrics if any(metric in row for row in compared)]
    lines = [f"| difference | {' | '.join(columns)} | seeds |", "|---|" + "---:|" * (len(columns) + 1)]
    for row in compared:
        cells = [_paired_cell(row[metric]) if metric in row else "-" for metric in columns]
        lines.append(f"| {row['variant']} minus {row['minus']} | {' | '.join(cells)} | {len(row['seeds'])} |")
    caption = f"Mean over the seeds, its {CONFIDENCE} % interval and p by a paired t-test, and each seed's difference."
    return "\n".join([*lines, "", caption])


def _at(row: Mapping[str, Any], metric: str, seed: int) -> float:
    return row[metric]["values"][row["seeds"].index(seed)]


def _difference(values: Sequence[float]) -> dict[str, Any]:
    mean, interval, p = statistics.fmean(values), None, None
    if len(values) > 1 and len(set(values)) > 1:
        test = stats.ttest_1samp(values, 0.0)
        interval = [float(end) for end in test.confidence_interval(CONFIDENCE / 100)]
        p = float(test.pvalue)
    return {"values": list(values), "mean": mean, "interval": interval, "p": p}


def _paired_cell(difference: Mapping[str, Any]) -> str:
    text = f"{difference['mean']:+.2f}"
    if difference["interval"]:
        low, high = difference["interval"]
        text += f" [{low:+.1f}, {high:+.1f}], p {difference['p']:.2f}"
    return f"{text} ({', '.join(f'{value:+.1f}' for value in difference['values'])})"


# Scores of a sweep's finished runs, over their seeds.


METRICS = (*SCORES, "MR-full-mAP", "HL-min-VeryGood-mAP")
"""What the table has a column for, in this order: the last two on QVHighlights only."""


def collect(plan: Plan, checkpoint: str) -> dict[str, Any]:
    """Scores of the finished runs: ``{set: {variant: {"seeds": [...], metric: {"mean", "std", "values"}}}}``.

    And the differences of the plan's pairs, by set: see :func:`~hero_plugin.integrations.tools.sweep.report.compare`.
    """
    table: dict[str, dict[str, Any]] = {}
    for job in plan.jobs:
        if not job.run.finished:
            continue
        scored = {**job.run.results()[checkpoint], **further_scores(job, plan.sets, checkpoint)}
        for name, scores in scored.items():
            row = table.setdefault(name, {}).setdefault(job.variant, {"seeds": []})
            row["seeds"].append(job.seed)
            for metric in METRICS:
                if metric in scores:
                    row.setdefault(metric, {"values": []})["values"].append(scores[metric])
    for rows in table.values():
        for row in rows.values():
            for metric in METRICS:
                if metric in row:
                    values = row[metric]["values"]
                    row[metric]["mean"] = statistics.fmean(values)
                    row[metric]["std"] = statistics.stdev(values) if len(values) > 1 else None
    differences = {name: compare(rows, plan.pairs, METRICS) for name, rows in table.items()}
    return {"checkpoint": checkpoint, "sets": table, "differences": differences}


def columns_of(rows: Mapping[str, Any]) -> list[str]:
    """The metrics that any variant of a set has."""
    return [metric for metric in METRICS if any(metric in row for row in rows.values())]


def markdown(results: Mapping[str, Any]) -> str:
    """Tables for each set: mean and sample standard deviation over the seeds, in percent, and differences."""
    parts = []
    for name, rows in results["sets"].items():
        columns = columns_of(rows)
        lines = [f"**{name}**", "", f"| | {' | '.join(columns)} | seeds |", "|---|" + "---:|" * (len(columns) + 1)]
        for variant, row in rows.items():
            cells = [_cell(row[metric]) if metric in row else "-" for metric in columns]
            lines.append(f"| {variant} | {' | '.join(cells)} | {len(row['seeds'])} |")
        if differences := results.get("differences", {}).get(name):
            lines += ["", paired_markdown(differences, columns)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts or ["No run is finished yet."]) + "\n"


def _cell(metric: Mapping[str, Any]) -> str:
    spread = "" if metric["std"] is None else f" ± {metric['std']:.2f}"
    return f"{metric['mean']:.2f}{spread}"


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
