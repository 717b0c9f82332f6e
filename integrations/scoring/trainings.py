"""Scores of several trainings: mean and deviation over the seeds, and differences seed by seed with a paired t-test.

These are about trainings alone, where ``bootstrap`` is about the videos of a test set as well: all that they need is
one score of each training.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support.tables import Cell, Row, Table

METRICS = (*SCORES, "MR-full-mAP", "HL-min-VeryGood-mAP")
"""What the tables have a column for, in this order: the last two on QVHighlights only."""
CONFIDENCE = 95


def summary(
    scores: Mapping[str, Mapping[str, Mapping[int, Mapping[str, float]]]],
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str] = METRICS,
) -> dict[str, Any]:
    """Return the rows of every set, the differences of the pairs, and the best.

    Args:
        scores: by set, variant, seed and metric.
        pairs: which variant minus which.
        metrics: what counts, where it is there.

    Returns:
        ``{"sets": {set: {variant: {"seeds": [...], metric: {"values", "mean", "std"}}}}, "differences": {set:
        differences as from compare}, "best": {set: {metric: variant}}}``; the best is better than every other variant
        by an interval that excludes 0, and often there is none.
    """
    sets = {name: {variant: _row(seeds, metrics) for variant, seeds in rows.items()} for name, rows in scores.items()}
    return {
        "sets": sets,
        "differences": {name: compare(rows, pairs, metrics) for name, rows in sets.items()},
        "best": {name: _best(rows, metrics) for name, rows in sets.items()},
    }


def _best(rows: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, str]:
    best = {}
    for metric in metrics:
        means = {variant: row[metric]["mean"] for variant, row in rows.items() if metric in row}
        winner = max(means, key=means.__getitem__, default="")
        others = [other for other in means if other != winner]
        compared = compare(rows, [(winner, other) for other in others], [metric])
        intervals = [each[metric]["interval"] for each in compared]
        if others and len(intervals) == len(others) and all(each and each[0] > 0 for each in intervals):
            best[metric] = winner
    return best


def _row(scores: Mapping[int, Mapping[str, float]], metrics: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": list(scores)}
    for metric in metrics:
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


LEGEND = (
    "Percent, mean ± sample standard deviation over the seeds. "
    f"Differences, in points: in [] the {CONFIDENCE} % interval of a paired t-test over the seeds that both have, "
    "with * where it excludes 0; in () each seed's own. Bold: better than every other model, by such intervals. "
    "No correction for the number of comparisons."
)


def trainings_table(results: Mapping[str, Any]) -> Table:
    """Return one table of what ``summary`` returns: every set's variants, then its differences."""
    rows: list[Row] = []
    every = [row for found in results["sets"].values() for row in found.values()]
    metrics = list(dict.fromkeys(metric for row in every for metric in row if metric != "seeds"))
    metrics.sort(key=lambda metric: METRICS.index(metric) if metric in METRICS else len(METRICS))
    for name, found in results["sets"].items():
        best = results.get("best", {}).get(name, {})
        for variant, row in found.items():
            cells = tuple(_score(row.get(metric), best.get(metric) == variant) for metric in metrics)
            rows.append(Row((name, variant, str(len(row["seeds"]))), cells))
        for each in results.get("differences", {}).get(name, ()):
            cells = tuple(_gain(each.get(metric)) for metric in metrics)
            rows.append(Row((name, pair_name(each), str(len(each["seeds"]))), cells))
    labels = ("set", "model", "seeds")
    return Table(labels, tuple(metrics), rows, caption=LEGEND, counts=("seeds",), shared=1)


def seeds_of_both(name: str, other: str, seeds: Mapping[str, Sequence[int]]) -> str:
    """Say which seeds two models have."""
    return "; ".join(f"{each} has seeds {', '.join(map(str, seeds[each]))}" for each in (name, other))


def pair_name(difference: Mapping[str, Any]) -> str:
    """Return what is compared with what."""
    return f"{difference['variant']} minus {difference['minus']}"


def _score(score: Mapping[str, Any] | None, best: bool) -> Cell:
    if score is None:
        return Cell(None)
    return Cell(score["mean"], score["std"], values=tuple(score.get("values", ())), best=best)


def _gain(gain: Mapping[str, Any] | None) -> Cell:
    if gain is None:
        return Cell(None)
    interval = tuple(gain["interval"]) if gain["interval"] else None
    return Cell(gain["mean"], None, interval, tuple(gain["values"]), gain["p"], difference=True)
