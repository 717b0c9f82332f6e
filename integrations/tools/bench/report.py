"""Measurements as tables: for a terminal, and in Markdown for a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
from rich.table import Table

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import write_json, write_text
from hero_plugin.integrations.support.plotting import BASE, CYCLE, HERO, INK, MUTED, SETTINGS, new_figure, save_figure
from hero_plugin.integrations.tools.bench.cases import Mode, Model, ModelName, Setting, Sizes, device_name
from hero_plugin.integrations.tools.bench.counters import Spread
from hero_plugin.integrations.tools.bench.measure import Measurement
from hero_plugin.integrations.training.bases import BASE_NAMES, BASES, BaseName

# What one run of the bench found, as a file and back.


PARTS = {"setting": Setting, "model": Model, "sizes": Sizes}


@dataclass(frozen=True)
class Report:
    """Measurements that were made together."""

    command: str
    conditions: str
    """On what, and how, in words."""
    measurements: list[Measurement]

    def write(self, path: Path, **more: Any) -> None:
        """As JSON, beside whatever else is to be noted."""
        measurements = [asdict(each) for each in self.measurements]
        content = {"command": self.command, "conditions": self.conditions, **more, "measurements": measurements}
        write_json(path, content)

    @classmethod
    def read(cls, path: Path) -> Report:
        """What :meth:`write` wrote.

        Raises:
            UserError: the file cannot be read, or is not one of these.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            measurements = [_measurement(each) for each in content["measurements"]]
            return cls(content["command"], content["conditions"], measurements)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} holds no measurements of hero-plugin bench --json ({error!r})") from error


def _measurement(plain: Mapping[str, Any]) -> Measurement:
    parts = {name: kind(**plain[name]) for name, kind in PARTS.items()}
    return Measurement(**{each.name: parts.get(each.name, plain[each.name]) for each in fields(Measurement)})


# How fast HERO shall be, and whether it is.


Quantity = Literal["time", "memory"]
Verdict = Literal["met", "not met", "not measured"]
LEVELS = 4


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of two models' step times or peak memory, in one run."""

    letter: str
    base: BaseName
    mode: Mode
    device: str
    over: ModelName
    under: ModelName
    quantity: Quantity
    bound: float
    at_least: bool = False

    @property
    def statement(self) -> str:
        what = "step" if self.mode == "train" else "inference"
        what = what if self.quantity == "time" else "peak memory"
        return f"{what}: {SHORT[self.over]} / {SHORT[self.under]}"

    @property
    def limit(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


SHORT = {
    "plain": "plain base",
    "hero": "HERO",
    "pair": 'HERO with relevance="pair"',
    "checkpoint": "HERO with checkpoint=True",
    "literal": "literal paper",
    "upstream": "upstream's plain base",
}


def _targets() -> Iterable[Target]:
    yield Target("a", "emb", "train", "cpu", "hero", "upstream", "time", 1.0)
    for device, bound in (("cpu", 3.0), ("cuda", 4.0)):
        for base in BASE_NAMES:
            yield Target("b", base, "train", device, "literal", "hero", "time", bound, at_least=True)
    for mode, bound in (("train", 1.6), ("inference", 1.3)):
        for base in BASE_NAMES:
            yield Target("c", base, mode, "cuda", "hero", "plain", "time", bound)
    for device in ("cpu", "cuda"):
        for base in BASE_NAMES:
            yield Target("d", base, "train", device, "pair", "hero", "time", 0.65)
    for device in ("cpu", "cuda"):
        for base in BASE_NAMES:
            yield Target("e", base, "train", device, "hero", "literal", "memory", 1.0)
            yield Target("e", base, "train", device, "checkpoint", "plain", "memory", 2.0)


TARGETS: tuple[Target, ...] = tuple(_targets())


@dataclass(frozen=True)
class Result:
    """A target and what was measured of it."""

    target: Target
    dtype: str
    ratio: Spread | None
    reason: str = ""
    """Why nothing was measured."""

    @property
    def verdict(self) -> Verdict:
        if self.ratio is None:
            return "not measured"
        return "met" if self.target.met(self.ratio.median) else "not met"


def models_for(base: str, mode: Mode, device: str, clones: bool) -> tuple[ModelName, ...]:
    """Models of a base that its targets compare on a device."""
    wanted = [each for each in TARGETS if (each.base, each.mode, each.device) == (base, mode, device)]
    names = dict.fromkeys(name for target in wanted for name in (target.under, target.over))
    return tuple(name for name in names if clones or name != "upstream")


def judge(measurements: Sequence[Measurement]) -> list[Result]:
    """Every target of the measured bases, in every measured number format."""
    found = {(*_place(each), each.model): each for each in measurements}
    bases = {each.setting.base for each in measurements}
    dtypes = dict.fromkeys(each.setting.dtype for each in measurements)
    results = []
    for target in TARGETS:
        for dtype in dtypes if target.base in bases else ():
            place = (target.base, target.mode, target.device, dtype)
            over, under = (found.get((*place, model_of(name))) for name in (target.over, target.under))
            ratio = None if over is None or under is None else ratio_of(over, under, target.quantity)
            results.append(Result(target, dtype, ratio, "" if ratio else why_not(target, measurements)))
    return results


def why_not(target: Target, measurements: Sequence[Measurement]) -> str:
    """Why there is no ratio to judge."""
    there = [each for each in measurements if _place(each)[2] == target.device]
    if not there:
        return f"nothing on a {device_name(target.device)}"
    if "upstream" in (target.over, target.under) and not any(each.model.name == "upstream" for each in there):
        return "no clone: give --upstream"
    return "not asked for" if any(each.seconds for each in there) else "not timed"


def model_of(name: ModelName) -> Model:
    return Model(name, 0 if name in ("plain", "upstream") else LEVELS)


def ratio_of(over: Measurement, under: Measurement, quantity: Quantity) -> Spread | None:
    """None where a time was not taken."""
    if quantity == "memory":
        return Spread.of([over.memory / under.memory])
    return Spread.of_ratio(over.seconds, under.seconds) if over.seconds and under.seconds else None


def _place(each: Measurement) -> tuple[str, str, str, str]:
    setting = each.setting
    return setting.base, setting.mode, setting.device.partition(":")[0], setting.dtype


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


# Tables in a page of the documentation, between comments that say what stands there.


def write_page(page: Path, parts: Mapping[str, str]) -> None:
    """Renew the parts of a page, those that it has.

    Raises:
        UserError: it has none of them.
    """
    text = page.read_text(encoding="utf-8")
    if not any(start in text and end in text for start, end in map(marks, parts)):
        start, end = marks(next(iter(parts), "cpu"))
        raise UserError(f"{page} has no place to write into; add the two lines {start} and {end}")
    for name, part in parts.items():
        text = replaced(text, name, part)
    write_text(page, text)


def device_parts(reports: Sequence[Report]) -> dict[str, str]:
    """What was measured on each device, by the part's name: ``cpu``, ``cuda``."""
    written: dict[str, list[str]] = {}
    for report in reports:
        for device in dict.fromkeys(each.setting.device for each in report.measurements):
            groups = settings_of([each for each in report.measurements if each.setting.device == device])
            tables = [markdown(narrowed(comparison(group))) for group in groups]
            written.setdefault(device, []).extend([*tables, source(report)])
    return {device: "\n".join(tables) for device, tables in written.items()}


def targets_part(reports: Sequence[Report]) -> dict[str, str]:
    """Which targets are met, as the part ``targets``."""
    results = verdicts(judge([each for report in reports for each in report.measurements]))
    return {"targets": "\n".join([markdown(results), *map(source, reports)])}


def source(report: Report) -> str:
    return f"(`{report.command}`; {report.conditions})\n"


def replaced(text: str, name: str, part: str) -> str:
    """The text with another part between its comments, or as it is where they are not."""
    start, end = marks(name)
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    return f"{before}{start}\n\n{part.strip()}\n\n{end}{after}" if found and closed else text


def marks(name: str) -> tuple[str, str]:
    return f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"


# Step time and peak memory of compared models as bars, a row of panels for each setting.


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
