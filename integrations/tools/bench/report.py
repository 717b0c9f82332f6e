"""Reports of measurements: a file, tables for a terminal and for a page, a figure, and the speed targets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from pathlib import Path
from textwrap import fill
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import rich.table
from pydantic import TypeAdapter

from hero_plugin.integrations.support import UserError, write_json, write_text
from hero_plugin.integrations.support.plotting import BASE, CYCLE, HERO, INK, MUTED, SETTINGS, new_figure, save_figure
from hero_plugin.integrations.support.tables import markdown_table, terminal_table
from hero_plugin.integrations.tools.bench.measure import Measurement, Quartiles
from hero_plugin.integrations.tools.bench.models import (
    DEVICE_NAMES,
    Format,
    Mode,
    ModelName,
    Setting,
    Variant,
    variants_of,
)
from hero_plugin.integrations.training.bases import BASE_NAMES, BASES, BaseName

Quantity = Literal["time", "memory"]
Verdict = Literal["met", "not met", "not measured"]


@dataclass(frozen=True)
class Report:
    """Measurements that were made together."""

    command: str
    conditions: str
    """On what, and how, in words."""
    measurements: list[Measurement]

    def write(self, path: Path, **more: Any) -> None:
        """Write it as JSON, beside whatever else is to be noted."""
        content = asdict(self)
        measurements = content.pop("measurements")
        write_json(path, {**content, **more, "measurements": measurements})

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read what ``write`` wrote; raise ``UserError`` where it cannot be read, or is not one of these."""
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:  # pydantic's own text tells each field that is not there, over many lines
            raise UserError(f"{path}: holds no measurements of hero-plugin bench --json") from error

    @property
    def source(self) -> str:
        """The command and the conditions, as a line of a page."""
        text = f"(`{self.command}`; {self.conditions})"
        return fill(text, 100, break_on_hyphens=False, break_long_words=False) + "\n"

    def groups(self) -> list[list[Measurement]]:
        """Return those that were made in turns, in order."""
        return [list(group) for _, group in groupby(self.measurements, lambda each: (each.setting, each.sizes))]


def ratio_of(over: Measurement | None, under: Measurement | None, quantity: Quantity) -> Quartiles | None:
    """Divide times turn by turn, or memory; None where one was not measured."""
    if over is None or under is None:
        return None
    if quantity == "memory":
        return Quartiles.of([over.memory / under.memory])
    return Quartiles.of_ratio(over.seconds, under.seconds) if over.seconds and under.seconds else None


# How fast HERO must be, and whether it is.

LEVELS = 4


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of two variants' step times or peak memory, in one run."""

    letter: str
    base: BaseName
    mode: Mode
    device: str
    over: ModelName
    under: ModelName
    quantity: Quantity
    bound: float


def _targets() -> Iterable[Target]:
    everywhere = list(product(("cpu", "cuda"), BASE_NAMES))
    for device, base in everywhere:
        yield Target("a", base, "inference", device, "one", "plain", "time", 1.15 if base == "emb" else 1.3)
    for device, base in everywhere:
        yield Target("b", base, "train", device, "hero", "plain", "time", 2.0)
    for device in ("cpu", "cuda"):
        yield Target("c", "emb", "train", device, "hero", "upstream", "time", 1.0)
        yield Target("c", "emb", "inference", device, "one", "upstream", "time", 0.4)
    for device, base in everywhere:
        yield Target("d", base, "train", device, "hero", "plain", "memory", 2.0)
        yield Target("d", base, "train", device, "checkpoint", "plain", "memory", 2.0)


TARGETS: tuple[Target, ...] = tuple(_targets())


@dataclass(frozen=True)
class Result:
    """A target and what was measured of it."""

    target: Target
    dtype: Format
    ratio: Quartiles | None
    reason: str = ""
    """Why nothing was measured."""

    @property
    def verdict(self) -> Verdict:
        """Whether the median keeps the bound."""
        if self.ratio is None:
            return "not measured"
        return "met" if self.ratio.median <= self.target.bound else "not met"


def models_for(base: str, mode: Mode, device: str, clones: bool) -> tuple[ModelName, ...]:
    """Return the models of a base that its targets compare on a device."""
    wanted = [each for each in TARGETS if (each.base, each.mode, each.device) == (base, mode, device)]
    names = dict.fromkeys(name for target in wanted for name in (target.under, target.over))
    return tuple(name for name in names if clones or name != "upstream")


def judge(measurements: Sequence[Measurement]) -> list[Result]:
    """Judge every target of the bases and devices that were measured, in every measured number format."""
    found = {(each.setting, each.model): each for each in measurements}
    places = {(each.setting.base, each.setting.device) for each in measurements}
    dtypes = dict.fromkeys(each.setting.dtype for each in measurements)
    results = []
    for target, dtype in product(TARGETS, dtypes):
        if (target.base, target.device) in places:
            setting = Setting(target.base, target.mode, target.device, dtype)
            over, under = (
                found.get((setting, variant))
                for name in (target.over, target.under)
                for variant in variants_of([name], [LEVELS], target.mode)
            )
            ratio = ratio_of(over, under, target.quantity)
            results.append(Result(target, dtype, ratio, "" if ratio else why_not(target, measurements)))
    return results


def why_not(target: Target, measurements: Sequence[Measurement]) -> str:
    """Say why there is no ratio to judge."""
    there = [each for each in measurements if each.setting.device == target.device]
    if "upstream" in (target.over, target.under) and not any(each.model.name == "upstream" for each in there):
        return "no clone: give --upstream"
    return "not asked for" if any(each.seconds for each in there) else "not timed"


# Tables, which a terminal and a page both show.

NOTHING = "–"


class Table(NamedTuple):
    """A table's text; every column but the first is of figures, unless it is among ``words``."""

    title: str
    rows: Sequence[Mapping[str, str]]
    """Cells by column, the same in each row."""
    words: tuple[str, ...] = ()

    def terminal(self) -> rich.table.Table:
        """Return it for a terminal."""
        cells = (tuple(row.values()) for row in self.rows)
        return terminal_table(tuple(self.rows[0]) if self.rows else (), cells, self.words, self.title)

    def page(self) -> str:
        """Return it for a page."""
        cells = [tuple(row.values()) for row in self.rows]
        return f"**{self.title}**\n\n{markdown_table(tuple(self.rows[0]) if self.rows else (), cells, self.words)}\n"


def comparison(group: Sequence[Measurement]) -> Table:
    """Return the variants in one setting: absolute figures, then ratios to the plain base and to the literal paper.

    At most eight columns, counts of operators where nothing was timed; JSON has everything.
    """
    timed = any(each.time for each in group)
    launches = "kernels" if any(each.kernels is not None for each in group) else "operators"
    by_variant = {each.model: each for each in group}
    plain = by_variant.get(Variant("plain"))
    rows = []
    for each in group:
        literal = by_variant.get(Variant("literal", each.model.levels)) if each.model.levels else None
        low, median, high = (three_digits(1e3 * value) for value in each.time or (0.0, 0.0, 0.0))
        absolute = {
            "model": str(each.model),
            "million parameters": f"{each.parameters / 1e6:.3f}",
            "GFLOP": f"{each.flops / 1e9:.3g}",
            launches: f"{each.operators if each.kernels is None else each.kernels:,}",
            "ms": f"{median} ({low} to {high})" if each.time else NOTHING,
            "peak MB": three_digits(each.memory / 1e6),
        }
        ratios = {
            "time / plain": median_of(ratio_of(each, plain, "time")),
            "FLOP / plain": NOTHING if plain is None else f"{each.flops / plain.flops:.2f}",
            "memory / plain": median_of(ratio_of(each, plain, "memory")),
            "literal time / this": median_of(ratio_of(literal, each, "time")),
        }
        left_out = {launches, "FLOP / plain"} if timed else {"ms", "time / plain", "literal time / this"}
        rows.append({name: cell for name, cell in {**absolute, **ratios}.items() if name not in left_out})
    return Table(f"{group[0].setting}, {group[0].sizes}", rows)


def verdicts(results: Sequence[Result]) -> Table:
    """Return the list of targets."""
    rows = []
    for result in results:
        target, ratio = result.target, result.ratio
        quantity = target.quantity
        what = "peak memory" if quantity == "memory" else "step" if target.mode == "train" else "inference"
        over, under = (variants_of([name], [LEVELS], target.mode)[0] for name in (target.over, target.under))
        rows.append(
            {
                "target": target.letter,
                "base": BASES[target.base].config.title,
                "device": DEVICE_NAMES[target.device] + (f", {result.dtype}" if result.dtype != "fp32" else ""),
                "ratio of": f"{what}: {over} / {under}",
                "bound": f"<= {target.bound:g}",
                "measured": median_of(ratio),
                "quartiles": f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio and quantity == "time" else NOTHING,
                "": result.verdict + (f": {result.reason}" if result.reason else ""),
            }
        )
    return Table("Targets", rows, words=("base", "device", "ratio of", ""))


def median_of(ratio: Quartiles | None) -> str:
    """Return the median with two decimals."""
    return NOTHING if ratio is None else f"{ratio.median:.2f}"


def three_digits(value: float) -> str:
    """Return at least three digits, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# Tables in a page of the documentation, between comments that say what stands there.


def marks(name: str) -> tuple[str, str]:
    """Return the comments around a part of a page."""
    return f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"


def write_page(page: Path, parts: Mapping[str, str]) -> None:
    """Renew the parts of a page, those that it has; raise ``UserError`` where it has none of them."""
    text, renewed = page.read_text(encoding="utf-8"), False
    for name, part in parts.items():
        start, end = marks(name)
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if found and closed:
            text, renewed = f"{before}{start}\n\n{part.strip()}\n\n{end}{after}", True
    if not renewed:
        start, end = marks(next(iter(parts), "cpu"))
        raise UserError(f"{page} has no place to write into; add the two lines {start} and {end}")
    write_text(page, text)


def device_parts(reports: Sequence[Report]) -> dict[str, str]:
    """Return what was measured on each device, by the part's name: ``cpu``, ``cuda``."""
    written: dict[str, list[str]] = {}
    for report in reports:
        for group in report.groups():
            written.setdefault(group[0].setting.device, []).append(comparison(group).page())
        for device in {each.setting.device for each in report.measurements}:
            written[device].append(report.source)
    return {device: "\n".join(tables) for device, tables in written.items()}


# Step time and peak memory as bars, one row of panels per setting.

COLORS = {
    "plain": BASE,
    "upstream": MUTED,
    "hero": HERO,
    "one": CYCLE[4],
    "pair": CYCLE[6],
    "checkpoint": CYCLE[2],
    "literal": CYCLE[3],
    "upstream-hero": CYCLE[5],
}
"""The same variant has the same colour in every panel."""


def draw_comparison(groups: Sequence[Sequence[Measurement]], path: Path) -> Path:
    """Write a PNG; bars of time reach the median, with a line from the lower to the upper quartile."""
    if not groups:
        raise UserError(f"{path}: nothing to draw, as nothing was measured")
    most = max(map(len, groups))
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(11, (0.9 + 0.32 * most) * len(groups), len(groups), 2)
        for (left, right), group in zip(axes, groups, strict=True):
            times = [each.time or Quartiles(0.0, 0.0, 0.0) for each in group]
            _bars(left, group, "time", [1e3 * time.median for time in times], [1e3 * time.high for time in times])
            for place, time in enumerate(times):
                left.plot([1e3 * time.low, 1e3 * time.high], [place, place], color=INK, linewidth=1.2)
            megabytes = [each.memory / 1e6 for each in group]
            _bars(right, group, "memory", megabytes, megabytes)
            left.set_title(str(group[0].setting))
            left.set_xlabel("step, ms")
            right.set_xlabel("peak memory, MB")
            right.set_yticklabels([])
        return save_figure(figure, path)


def _bars(
    axis: Any, group: Sequence[Measurement], quantity: Quantity, values: Sequence[float], ends: Sequence[float]
) -> None:
    places = range(len(group))
    plain = next((each for each in group if each.model.name == "plain"), None)
    axis.barh(places, values, height=0.7, color=[COLORS[each.model.name] for each in group])
    for place, each, value, end in zip(places, group, values, ends, strict=True):
        label = f"{three_digits(value)} {'ms' if quantity == 'time' else 'MB'}"
        ratio = None if each is plain else ratio_of(each, plain, quantity)
        if ratio is not None:
            label += f", {ratio.median:.2f} x plain"
        if quantity == "time" and not each.seconds:
            label = "not timed"
        axis.annotate(label, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    axis.set_yticks(places, [str(each.model) for each in group])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.margins(x=0.36)
