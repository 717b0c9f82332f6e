"""Two variants of a sweep compared seed by seed: the same seed gives both the same order of examples."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

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


def markdown(compared: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """A table of the differences: mean, its interval, and every seed's."""
    columns = [metric for metric in metrics if any(metric in row for row in compared)]
    lines = [f"| difference | {' | '.join(columns)} | seeds |", "|---|" + "---:|" * (len(columns) + 1)]
    for row in compared:
        cells = [_cell(row[metric]) if metric in row else "-" for metric in columns]
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


def _cell(difference: Mapping[str, Any]) -> str:
    text = f"{difference['mean']:+.2f}"
    if difference["interval"]:
        low, high = difference["interval"]
        text += f" [{low:+.1f}, {high:+.1f}], p {difference['p']:.2f}"
    return f"{text} ({', '.join(f'{value:+.1f}' for value in difference['values'])})"
