"""Measurements as tables: for a terminal, and in Markdown for a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table

from hero_plugin.integrations.bases import BASES
from hero_plugin.integrations.bench.cases import Model, device_name
from hero_plugin.integrations.bench.measure import Measurement
from hero_plugin.integrations.bench.targets import Result, ratio_of

NOTHING = "–"
ON_PAGE = (
    "model",
    "million parameters",
    "GFLOP",
    "ms",
    "peak MB",
    "time / plain",
    "memory / plain",
    "literal time / this",
)
"""Columns of a comparison on a page; JSON and the terminal have all."""


class Grid(NamedTuple):
    """A table's text; every column but the first is of figures, unless it is among ``words``."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: tuple[str, ...] = ()


def settings_of(measurements: Sequence[Measurement]) -> list[list[Measurement]]:
    """Those that were made in turns, in order."""
    groups: dict[object, list[Measurement]] = {}
    for each in measurements:
        groups.setdefault((each.setting, each.sizes), []).append(each)
    return list(groups.values())


def comparison(group: Sequence[Measurement]) -> Grid:
    """The models of one setting: absolute figures, then ratios to the plain base and to the literal paper."""
    launches = "kernels" if any(each.kernels is not None for each in group) else "operators"
    header = (
        *("model", "million parameters", "GFLOP", launches, "ms", "quartiles", "queries /s", "peak MB"),
        *("time / plain", "FLOP / plain", "memory / plain", "literal time / this"),
    )
    by_model = {each.model: each for each in group}
    plain = by_model.get(Model("plain"))
    rows = []
    for each in group:
        literal = by_model.get(Model("literal", each.model.levels)) if each.model.levels else None
        time = each.time
        rows.append(
            (
                str(each.model),
                f"{each.parameters / 1e6:.3f}",
                f"{each.flops / 1e9:.3g}",
                f"{each.operators if each.kernels is None else each.kernels:,}",
                NOTHING if time is None else milliseconds(time.median),
                NOTHING if time is None else f"{milliseconds(time.low)} to {milliseconds(time.high)}",
                NOTHING if each.throughput is None else three_digits(each.throughput),
                megabytes(each.memory),
                times(each, plain),
                NOTHING if plain is None else f"{each.flops / plain.flops:.2f}",
                NOTHING if plain is None else f"{each.memory / plain.memory:.2f}",
                NOTHING if literal is None else times(literal, each),
            )
        )
    return Grid(f"{group[0].setting}, {group[0].sizes}", header, rows)


def verdicts(results: Sequence[Result]) -> Grid:
    """The list of targets."""
    header = ("target", "base", "device", "ratio of", "bound", "measured", "quartiles", "")
    rows = []
    for result in results:
        target, ratio = result.target, result.ratio
        rows.append(
            (
                target.letter,
                BASES[target.base].config.title,
                device_name(target.device) + (f", {result.dtype}" if result.dtype != "fp32" else ""),
                target.statement,
                target.limit,
                NOTHING if ratio is None else f"{ratio.median:.2f}",
                NOTHING if ratio is None or target.quantity == "memory" else f"{ratio.low:.2f} to {ratio.high:.2f}",
                result.verdict + (f": {result.reason}" if result.reason else ""),
            )
        )
    return Grid("Targets", header, rows, words=("base", "device", "ratio of", ""))


def times(over: Measurement, under: Measurement | None) -> str:
    ratio = None if under is None else ratio_of(over, under, "time")
    return NOTHING if ratio is None else f"{ratio.median:.2f}"


def milliseconds(seconds: float) -> str:
    return three_digits(1e3 * seconds)


def megabytes(size: int) -> str:
    return three_digits(size / 1e6)


def three_digits(value: float) -> str:
    """At least so many, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rich_table(grid: Grid) -> Table:
    """For the terminal."""
    table = Table(title=grid.title, title_justify="left", title_style="bold")
    for place, name in enumerate(grid.header):
        words = place == 0 or name in grid.words
        # Headers of figures break at their spaces, figures nowhere.
        header = name if words else name.replace(" ", "\n")
        table.add_column(header, justify="left" if words else "right", no_wrap=place == 0 or not words)
    for row in grid.rows:
        table.add_row(*row)
    return table


def narrowed(grid: Grid) -> Grid:
    """Return the columns of a comparison that a page has room for, the quartiles beside their median."""
    place = {name: index for index, name in enumerate(grid.header)}
    rows = []
    for row in grid.rows:
        median, quartiles = row[place["ms"]], row[place["quartiles"]]
        timed = median if median == NOTHING else f"{median} ({quartiles})"
        rows.append(tuple(timed if name == "ms" else row[place[name]] for name in ON_PAGE))
    return Grid(grid.title, ON_PAGE, rows, grid.words)


def markdown(grid: Grid) -> str:
    """For a page."""
    rule = ("---" if place == 0 or name in grid.words else "---:" for place, name in enumerate(grid.header))
    lines = [f"**{grid.title}**", "", _line(grid.header), "|" + "|".join(rule) + "|", *map(_line, grid.rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
