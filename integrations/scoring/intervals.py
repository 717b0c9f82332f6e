"""Intervals: over the videos of a test set by the bootstrap, and over trainings."""

import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support.errors import UserError
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

    ``scores`` are by set, variant, seed and metric; ``pairs`` say which variant minus which; of ``metrics``, those
    count that are there. ``UserError`` where a variant has a metric under some of its seeds alone.

    Returns:
        ``{"sets": {set: {variant: {"seeds": [...], metric: {"values", "mean", "std"}}}}, "differences": {set:
        differences as from compare}, "best": {set: {metric: variant}}}``; the best is better than every other variant
        by an interval that excludes 0, and often there is none.
    """
    sets = {
        name: {variant: _row(f"{variant}, {name}", seeds, metrics) for variant, seeds in rows.items()}
        for name, rows in scores.items()
    }
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


def _row(name: str, scores: Mapping[int, Mapping[str, float]], metrics: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": list(scores)}
    for metric in metrics:
        if values := [each[metric] for each in scores.values() if metric in each]:
            if lacking := [seed for seed, each in scores.items() if metric not in each]:
                raise UserError(f"{name}: no {metric} under seed {', '.join(map(str, lacking))}, which others have")
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
        one, two = (rows.get(name, {"seeds": []}) for name in (variant, other))
        seeds = [seed for seed in one["seeds"] if seed in two["seeds"]]
        if not seeds:
            continue
        row: dict[str, Any] = {"variant": variant, "minus": other, "seeds": seeds}
        for metric in metrics:
            if metric in one and metric in two:
                mine, its = (dict(zip(each["seeds"], each[metric]["values"], strict=True)) for each in (one, two))
                row[metric] = _difference([mine[seed] - its[seed] for seed in seeds])
        compared.append(row)
    return compared


SAME = 1e-9
"""Points by which differences that are the same may differ: floats have 30.3 - 30.2 and 40.3 - 40.2 apart."""


def _difference(values: Sequence[float]) -> dict[str, Any]:
    interval = p = None
    if max(values) - min(values) > SAME:
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
            cells = tuple(_cell(row.get(metric), best=best.get(metric) == variant) for metric in metrics)
            rows.append(Row((name, variant, str(len(row["seeds"]))), cells))
        for each in results.get("differences", {}).get(name, ()):
            cells = tuple(_cell(each.get(metric), difference=True) for metric in metrics)
            rows.append(Row((name, f"{each['variant']} minus {each['minus']}", str(len(each["seeds"]))), cells))
    labels = ("set", "model", "seeds")
    return Table(labels, tuple(metrics), rows, caption=LEGEND, counts=("seeds",), shared=1)


def seeds_of_both(name: str, other: str, seeds: Mapping[str, Sequence[int]]) -> str:
    """Say which seeds two models have."""
    return "; ".join(f"{each} has seeds {', '.join(map(str, seeds[each]))}" for each in (name, other))


def _cell(figure: Mapping[str, Any] | None, **marks: bool) -> Cell:
    """Return a score, or a difference, as a cell; empty where there is none."""
    if figure is None:
        return Cell(None)
    interval = tuple(figure["interval"]) if figure.get("interval") else None
    return Cell(figure["mean"], figure.get("std"), interval, tuple(figure.get("values", ())), figure.get("p"), **marks)


FEWEST_VIDEOS = 5
"""Figures over fewer videos get no interval: there is nothing to draw from."""

_CHUNK = 256  # draws multiplied at once: what bounds the memory


@dataclass(frozen=True)
class Estimate:
    """A figure, or several, and what it was in each draw."""

    value: np.ndarray
    """(...)."""
    draws: np.ndarray = field(repr=False)
    """(draws, ...); nan in draws that had none of its queries."""
    trainings: np.ndarray | None = field(default=None, repr=False)
    """(S, ...), the figure of each training; None for a difference of models that were trained with other seeds."""
    seeds: tuple[int, ...] = ()
    """(S,), names of the trainings."""

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Return the paired difference; both must come from one ``Bootstrap``."""
        each = None
        if self.trainings is not None and other.trainings is not None and self.seeds == other.seeds:
            each = self.trainings - other.trainings
        return Estimate(self.value - other.value, self.draws - other.draws, each, self.seeds)

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds (...), (...) of the middle 95 % of the draws; NaN where there are no draws."""
        tail = (1 - CONFIDENCE / 100) / 2
        known = np.isfinite(self.draws).any(axis=0)
        draws = np.where(known, self.draws, 0.0)
        low, high = np.nanquantile(draws, [tail, 1 - tail], axis=0)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)


class Bootstrap:
    """Draws for one set of queries.

    Each draw takes one video fewer than there are, with replacement: with that many the variance of a mean comes out
    unbiased. Two or three trainings are too few to draw from; instead, each draw weighs them so that their mean spreads
    as Student's t says of a mean of so many: for one query the interval is that of the t-test.

    Args:
        videos: (Q,), the video of each query, by any name.
        number: Number of draws.
        seed: The same seed gives the same draws.
        trainings: Spread over trainings as well; else all count alike in every draw, and intervals are about these.

    >>> bootstrap = Bootstrap(["a", "a", "b", "c", "d", "e"], number=100)
    >>> float(bootstrap.mean(np.ones((1, 6))).value)
    1.0
    """

    def __init__(
        self, videos: Sequence[Hashable], *, number: int = 2000, seed: int = 0, trainings: bool = True
    ) -> None:
        if number < 1:
            raise ValueError(f"number must be at least 1, got {number}")
        if not len(videos):
            raise ValueError("no queries to draw from")
        rows = {video: row for row, video in enumerate(dict.fromkeys(videos))}
        self.rows = np.array([rows[video] for video in videos])
        self.number, self.seed, self.trainings = number, seed, trainings
        count = len(rows)
        draw = np.random.default_rng([seed, 0])
        self._counts = np.empty((number, count), np.uint16)
        for row in self._counts:
            row[:] = np.bincount(draw.integers(count, size=max(count - 1, 1)), minlength=count)
        self._order = np.argsort(self.rows, kind="stable")
        self._starts = np.searchsorted(self.rows[self._order], np.arange(count))

    def videos(self, where: np.ndarray | None = None) -> int:
        """Return the number of videos of the queries, or of those that the mask ``where`` (Q,) selects."""
        return len(np.unique(self.rows if where is None else self.rows[where]))

    def mean(
        self, values: np.ndarray, weights: np.ndarray | None = None, *, seeds: Sequence[int] | None = None
    ) -> Estimate:
        """Estimate the weighted mean over queries, then the mean over trainings.

        Args:
            values: (S, Q) or (S, Q, K), K figures of each query by each of S trainings.
            weights: (Q,), (S, Q) or (S, Q, K), non-negative: a mask takes the mean over a group. None counts every
                query once.
            seeds: (S,) names of the trainings, whole numbers. Models with the same names share their draws.

        Returns:
            An estimate of value () or (K,); NaN where one of the trainings has no weight.

        Raises:
            ValueError: Shapes do not fit.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.ndim not in (2, 3) or values.shape[1] != len(self.rows) or not len(values):
            raise ValueError(f"values must be (S, {len(self.rows)}) or (S, {len(self.rows)}, K), got {values.shape}")
        figures = values if values.ndim == 3 else values[..., None]
        runs, _, number = figures.shape
        shares = _weights(weights, figures.shape)
        # What has no weight must not reach the sums: it may be nan.
        parts = np.concatenate([np.where(shares > 0, figures, 0.0) * shares, shares], axis=2)
        sums = np.add.reduceat(parts[:, self._order], self._starts, axis=1)  # (S, videos, 2 K)
        each = _ratio(sums.sum(axis=1))  # (S, K)
        value = each.mean(axis=0)
        draws = np.empty((self.number, number))
        shifted = self._trainings(runs, seeds)
        flat = np.moveaxis(sums, 1, 0).reshape(sums.shape[1], -1)
        for start in range(0, self.number, _CHUNK):
            part = slice(start, start + _CHUNK)
            drawn = (self._counts[part].astype(np.float64) @ flat).reshape(-1, runs, 2 * number)
            draws[part] = np.einsum("bs,bsk->bk", shifted[part], _ratio(drawn))
        with_weight = (sums[..., number:] > 0).sum(axis=1).min(axis=0)  # (K,) videos, of the training with the fewest
        draws[:, with_weight < FEWEST_VIDEOS] = np.nan
        names = tuple(range(runs) if seeds is None else seeds)
        if values.ndim == 3:
            return Estimate(value, draws, each, names)
        return Estimate(value[0], draws[:, 0], each[:, 0], names)

    def _trainings(self, runs: int, seeds: Sequence[int] | None) -> np.ndarray:
        """Return how much each training counts in each draw, (draws, S): rows that sum to 1, of either sign."""
        names = range(runs) if seeds is None else seeds
        if len(names) != runs:
            raise ValueError(f"seeds must name the {runs} trainings, got {len(names)}")
        even = np.full((self.number, runs), 1 / runs)
        if runs == 1 or not self.trainings:
            return even
        draw = np.random.default_rng([self.seed, 1, *names])
        # Weights of a centred normal vector give a mean of S values a deviation of N(0, 1) times their own, with S - 1
        # degrees of freedom; divided by the root of a chi-square, of t.
        normal = draw.normal(size=(self.number, runs))
        spread = np.sqrt(draw.chisquare(runs - 1, size=(self.number, 1)) * runs)
        return even + (normal - normal.mean(axis=1, keepdims=True)) / spread


def _weights(weights: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return weights of any of the shapes that ``Bootstrap.mean`` takes as (S, Q, K)."""
    if weights is None:
        return np.ones(shape)
    given = np.asarray(weights, dtype=np.float64)
    if given.shape not in (shape[1:2], shape[:2], shape):
        raise ValueError(f"weights must be {shape[1:2]}, {shape[:2]} or {shape}, got {given.shape}")
    given = given if given.ndim == 3 else given[..., None]
    return np.broadcast_to(given, shape)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Return means (..., K), NaN without weight, of sums (..., 2 K) of K values, then of their weights."""
    values, weights = np.split(sums, 2, axis=-1)
    return np.where(weights > 0, values / np.where(weights > 0, weights, 1.0), np.nan)
