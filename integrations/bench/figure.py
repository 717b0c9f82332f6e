"""Step time and peak memory of compared models as bars, a row of panels for each setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from hero_plugin.integrations.bench.measure import Measurement
from hero_plugin.integrations.bench.tables import megabytes, milliseconds, settings_of
from hero_plugin.integrations.bench.targets import Quantity, ratio_of
from hero_plugin.integrations.bench.timing import Spread
from hero_plugin.integrations.figures.style import BASE, CYCLE, HERO, INK, MUTED, SETTINGS, new_figure, save_figure

COLORS = {
    "plain": BASE,
    "upstream": MUTED,
    "hero": HERO,
    "pair": CYCLE[6],
    "checkpoint": CYCLE[2],
    "literal": CYCLE[3],
    "upstream-hero": CYCLE[5],
}
"""The same model has the same colour in every panel."""


def draw_comparison(measurements: Sequence[Measurement], path: Path) -> Path:
    """Write a PNG; bars of time reach the median, with a line from the lower to the upper quartile."""
    groups = settings_of(measurements)
    most = max(map(len, groups))
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(11, (0.9 + 0.32 * most) * len(groups), len(groups), 2)
        for (left, right), group in zip(axes, groups, strict=True):
            times = [each.time or Spread(0.0, 0.0, 0.0) for each in group]
            medians, highs = ([1e3 * time for time in column] for column in list(zip(*times, strict=True))[1:])
            _bars(left, group, medians, highs, _time_labels(group))
            for place, time in enumerate(times):
                left.plot([1e3 * time.low, 1e3 * time.high], [place, place], color=INK, linewidth=1.2)
            megabytes_each = [each.memory / 1e6 for each in group]
            _bars(right, group, megabytes_each, megabytes_each, _memory_labels(group))
            left.set_title(str(group[0].setting))
            left.set_xlabel("step, ms")
            right.set_xlabel("peak memory, MB")
            right.set_yticklabels([])
        return save_figure(figure, path)


def _bars(
    axis: Any, group: Sequence[Measurement], values: Sequence[float], ends: Sequence[float], labels: Sequence[str]
) -> None:
    places = range(len(group))
    axis.barh(places, values, height=0.7, color=[COLORS[each.model.name] for each in group])
    for place, end, label in zip(places, ends, labels, strict=True):
        axis.annotate(label, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    axis.set_yticks(places, [str(each.model) for each in group])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.margins(x=0.36)


def _time_labels(group: Sequence[Measurement]) -> list[str]:
    return [
        f"{milliseconds(each.time.median)} ms{_ratio(each, group, 'time')}" if each.time else "not timed"
        for each in group
    ]


def _memory_labels(group: Sequence[Measurement]) -> list[str]:
    return [f"{megabytes(each.memory)} MB{_ratio(each, group, 'memory')}" for each in group]


def _ratio(each: Measurement, group: Sequence[Measurement], quantity: Quantity) -> str:
    """Over the plain base, where it was measured."""
    plain = next((other for other in group if other.model.name == "plain"), None)
    ratio = None if plain is None or plain is each else ratio_of(each, plain, quantity)
    return "" if ratio is None else f", {ratio.median:.2f} x plain"
