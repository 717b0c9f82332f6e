"""The report on robustness for people: tables, and figures of scores by group and of pairs of wordings."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from hero_plugin.integrations.evaluation.robustness import Draws, Model, measure_robustness
from hero_plugin.integrations.scoring.intervals import FEWEST_VIDEOS
from hero_plugin.integrations.scoring.metrics import CONSISTENCY, SCORES, temporal_iou
from hero_plugin.integrations.support import plotting
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.tables import Cell, Row, Table, check_endings, write_table

Report = Mapping[str, Any]
"""As from ``measure_robustness``."""
Part = Mapping[str, Any]
"""One group of queries in it."""


def check_outputs(config: Any) -> None:
    """Raise ``UserError`` where flags for tables and figures do not go together, or a file cannot be written."""
    compare = getattr(config, "compare", False)
    for flag, wanted in (("--figures", config.figures is not None), ("--table", config.table), ("--compare", compare)):
        if wanted and not config.resamples:
            raise UserError(f"{flag} shows intervals, which --resamples 0 leaves out")
    check_endings("--table", config.table)
    for name in ("json", "predictions", "figure"):
        if (path := getattr(config, name, None)) is not None and path.is_dir():
            raise UserError(f"--{name} {path}: is a folder; name a file")
    if config.figures is not None and config.figures.is_file():
        raise UserError(f"--figures {config.figures}: is a file; name a folder")


def show_robustness(
    models: Sequence[Model], draws: Draws, screen: Screen, figures: Path | None = None, tables: Sequence[Path] = ()
) -> dict[str, Any]:
    """Measure, print, draw into the folder ``figures``, and write one table of all into files; return the report."""
    with screen.working("drawing intervals", 1):
        report = measure_robustness(models, draws)
    for table in robustness_tables(report):
        screen.show(table.terminal())
    screen.say(f"{caption(report)}; none where a group has fewer than {FEWEST_VIDEOS} videos")
    for name, about in report["models"].items():
        if len(about["seeds"]) > 1:
            screen.say(f"{name}: mean over seeds {', '.join(map(str, about['seeds']))}")
    for note in report["notes"]:
        screen.say(f"note: {note}")
    for path in tables:
        screen.say(f"table: {write_table(comparison_table(report), path)}")
    if figures is not None:
        for name, found in report["sets"].items():
            file = re.sub(r"[^\w.-]+", "_", name)
            if found["groups"]:
                screen.say(f"drawn: {plotting.save_figure(groups_figure(report, name), figures / f'{file}-drift.png')}")
            if found["pairs"]:
                screen.say(
                    f"drawn: {plotting.save_figure(pairs_figure(report, name, models), figures / f'{file}-pairs.png')}"
                )
    return report


def robustness_tables(report: Report) -> list[Table]:
    """Return tables of each set: scores by group and, where there are pairs, of both wordings, and consistency."""
    tables = []
    for name, found in report["sets"].items():
        if groups := found["groups"]:
            tables.append(_table(f"{name}, by drift", report, groups, ("queries", "videos"), SCORES))
        if pairs := found["pairs"]:
            title = f"{name}, the same pairs in both wordings"
            tables.append(_table(title, report, pairs, ("pairs", "wording"), SCORES, WORDINGS))
            title = f"{name}, does the answer move?"
            tables.append(_table(title, report, pairs, ("pairs",), CONSISTENCY, ("consistency",)))
    return tables


WORDINGS = ("original", "reworded", "change")


def _table(
    title: str,
    report: Report,
    parts: Sequence[Part],
    columns: Sequence[str],
    names: Sequence[str],
    wordings: Sequence[str] = ("",),
) -> Table:
    """Return a table with one row per group, wording and model, each difference under its model.

    Of the groups, only the last wording has rows, which is what rewording changes.
    """
    several = len(report["models"]) > 1
    rows = []
    for part in worth_a_row(parts):
        counts = {"queries": part["queries"], "pairs": part["queries"], "videos": part["videos"]}
        for wording in wordings if part["by"] == "all" else wordings[-1:]:
            named = [f"{counts[column]:,}" if column in counts else wording for column in columns]
            for model, figures, difference in _of_models(report, part):
                found = figures[wording] if wording else figures
                cells = tuple(_cell(found[each], difference or wording == "change") for each in names)
                rows.append(Row((group_name(part), *named, *([model] if several else [])), cells))
    labels = ("group", *columns, *(("model",) if several else ()))
    return Table(labels, tuple(names), rows, title, counts=("queries", "pairs", "videos"), digits=1)


def _of_models(report: Report, part: Part) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Yield the name and figures of every model and, under it, of its difference from what it is compared with."""
    for model, about in report["models"].items():
        yield model, part["models"][model], False
        if model in part["differences"]:
            yield f"{model} minus {about['compared_with']}", part["differences"][model], True


def _cell(figure: Mapping[str, Any], difference: bool, deviation: bool = False, best: bool = False) -> Cell:
    interval = None if figure["low"] is None else (figure["low"], figure["high"])
    std = figure.get("std") if deviation else None
    values = tuple(figure.get("values", ())) if deviation else ()
    return Cell(figure["value"], std, interval, values, difference=difference, best=best)


def comparison_table(report: Report) -> Table:
    """Return one table of all sets and groups, as ``hero-plugin table`` prints it.

    Models have mean and deviation over their trainings, differences their intervals.
    """
    rows, labels = [], ("set", "group", "queries", "videos", "model")
    for name, found in report["sets"].items():
        for part in worth_a_row(found["groups"]):
            named = (name, group_name(part), str(part["queries"]), str(part["videos"]))
            for model, figures, difference in _of_models(report, part):
                marked = {} if difference else part["best"]
                cells = [_cell(figures[score], difference, True, marked.get(score) == model) for score in SCORES]
                rows.append(Row((*named, model), tuple(cells)))
    return Table(labels, SCORES, rows, caption=_legend(report), counts=("queries", "videos"), digits=1)


def _legend(report: Report) -> str:
    """Say what the figures of ``comparison_table`` are."""
    parts = ["Percent."]
    several = {name: about["seeds"] for name, about in report["models"].items() if len(about["seeds"]) > 1}
    if several:
        named = "; ".join(f"{name} over seeds {', '.join(map(str, seeds))}" for name, seeds in several.items())
        parts.append(f"Mean ± sample standard deviation: {named}.")
    parts.append(f"[]: {_interval(report)}.")
    if len(report["models"]) > 1:
        parts.append(
            "*: the interval of the difference excludes 0. "
            "Bold: better than every other model, by such intervals. No correction for the number of comparisons."
        )
    return " ".join(parts)


def caption(report: Report) -> str:
    """Return what the figures and their intervals are."""
    return f"percent [{_interval(report)}]"


def _interval(report: Report) -> str:
    about = report["interval"]
    return f"{100 * about['level']:.0f} % interval of {about['resamples']:,} draws of {about['drawn']}"


def group_name(part: Part) -> str:
    """Return a group's name in tables and figures."""
    if part["by"] == "unseen words":
        return f"{part['group']} unseen"
    return f"part: {part['group']}" if part["by"] == "part" else str(part["group"])


def worth_a_row(parts: Sequence[Part]) -> list[Part]:
    """Return the groups that have queries, less those kinds of change, and those parts, that are all there is."""
    return [
        part
        for part in parts
        if part["queries"] and (part["by"] not in ("change", "part") or part["queries"] != parts[0]["queries"])
    ]


FEW = 30
"""Groups of fewer videos are drawn pale."""
MANY = 7
"""More groups than these have slanting names, which would else run into one another."""


def groups_figure(report: Report, name: str) -> Figure:
    """Draw a set's scores by group, one panel per score, and below them the differences between models, if any."""
    with mpl.rc_context(plotting.SETTINGS):
        parts = worth_a_row(report["sets"][name]["groups"])
        colors = model_colors(report)
        rows = 2 if any(part["differences"] for part in parts) else 1
        figure, axes = plotting.new_figure(
            1.5 + 1.7 * max(6.0, len(parts) * max(1.0, 0.45 * len(colors))), 0.9 + 3.0 * rows, rows, len(SCORES),
            sharex="col", height_ratios=(1.25, 1.0)[:rows],
        )  # fmt: skip
        for column, score in enumerate(SCORES):
            top = axes[0][column]
            _points(top, parts, colors, "models", score)
            top.set_title(score)
            top.set_ylim(bottom=0)
            if rows == 2:
                _points(axes[1][column], parts, colors, "differences", score)
                axes[1][column].set_ylim(*_limits(parts, score))
                axes[1][column].axhline(0, color=plotting.INK, linewidth=0.9)
            if len(parts) <= MANY:
                labels = [group_name(part).replace(" ", "\n") + f"\n{part['queries']:,}" for part in parts]
                slant = {}
            else:
                labels = [f"{group_name(part)}  {part['queries']:,}" for part in parts]
                slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
            axes[-1][column].set_xticks(range(len(parts)), labels, fontsize=8, **slant)
        axes[0][0].set_ylabel("percent")
        if rows == 2:
            against = {about["compared_with"] for about in report["models"].values()} - {None}
            axes[1][0].set_ylabel("minus " + (against.pop() if len(against) == 1 else "its base") + ", points")
        note = f"group and its queries; {caption(report)}"
        if any(part["videos"] < FEW for part in parts):
            note += f"; pale: fewer than {FEW} videos"
        return _framed(figure, axes[0][0], report, f"{name}: scores by unseen words", note)


def pairs_figure(report: Report, name: str, models: Sequence[Model]) -> Figure:
    """Draw originals beside rewordings, the overlap of each pair of answers, and the figures of consistency."""
    with mpl.rc_context(plotting.SETTINGS):
        whole = report["sets"][name]["pairs"][0]
        colors = model_colors(report)
        figure, axes = plotting.new_figure(13.5, 4.6, 1, 3, width_ratios=(1.15, 1.0, 1.25))
        wordings, overlaps, kept = axes[0]
        _wordings(wordings, whole, colors)
        for model in models:
            _overlap_curve(overlaps, model, name, colors[model.name])
        overlaps.set(xlim=(0, 1), ylim=(0, 100), xlabel="overlap of the two answers, IoU", ylabel="pairs, percent")
        overlaps.set_title("Pairs whose answers overlap\nthis much or more")
        _points(kept, [whole], colors, "models", None)
        kept.set_xticks(range(len(CONSISTENCY)), [each.replace(" ", "\n").replace("@", "\n@ ") for each in CONSISTENCY])
        kept.set(ylim=(0, 100), ylabel="percent")
        kept.set_title("Does the answer move?\nConsistency of the pairs")
        title = f"{name}: {whole['queries']:,} rewordings beside their originals, {whole['videos']:,} videos"
        return _framed(figure, kept, report, title, caption(report))


def _framed(figure: Figure, axis: Any, report: Report, title: str, note: str) -> Figure:
    """Add a legend of the models on ``axis``, a title above and a note below."""
    handles, labels = axis.get_legend_handles_labels()
    seeds = {name: len(about["seeds"]) for name, about in report["models"].items()}
    named = [f"{label} ({seeds[label]} seeds)" if seeds[label] > 1 else label for label in labels]
    figure.legend(handles, named, loc="outside lower right", ncols=2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    plotting.write_note(figure, note)
    return figure


def model_colors(report: Report) -> dict[str, str]:
    """Return the usual two colours for a model and what it is compared with; otherwise the cycle."""
    models = report["models"]
    if len(models) > 2:
        return dict(zip(models, cycle(plotting.CYCLE), strict=False))
    against = {about["compared_with"] for about in models.values()}
    return {name: plotting.BASE if name in against else plotting.HERO for name in models}


def _points(axis: Any, parts: Sequence[Part], colors: Mapping[str, str], what: str, score: str | None) -> None:
    """Draw a point with its interval for each model in each group; of one part, for each figure of consistency."""
    names = [name for name in colors if name in parts[0][what]]
    for place, name in enumerate(names):
        if score is None:
            figures = [parts[0][what][name]["consistency"][each] for each in CONSISTENCY]
        else:
            figures = [part[what][name][score] for part in parts]
        at = np.arange(len(figures)) + (place - (len(names) - 1) / 2) * min(0.24, 0.7 / len(names))
        pale = None if score is None else np.array([part["videos"] < FEW for part in parts])
        _errorbar(axis, at, figures, colors[name], name, pale)
    axis.grid(axis="x", visible=False)
    axis.set_xlim(-0.6, len(figures) - 0.4)


def _limits(parts: Sequence[Part], score: str) -> tuple[float, float]:
    """Return the ends of an axis that shows 0 and every difference with its interval."""
    figures = [each[score] for part in parts for each in part["differences"].values()]
    ends = (each[end] for each in figures for end in ("value", "low", "high"))
    shown = [0.0, *(value for value in ends if value is not None)]
    margin = 0.08 * (max(shown) - min(shown)) or 1.0
    return min(shown) - margin, max(shown) + margin


def _errorbar(
    axis: Any, at: np.ndarray, figures: Sequence[Part], color: str, label: str = "", pale: np.ndarray | None = None
) -> Any:
    """Draw points with their intervals, where they have one, some of them pale; return the points that are not."""
    # None becomes NaN.
    values, low, high = (np.array([each[key] for each in figures], dtype=float) for key in ("value", "low", "high"))
    # A figure may lie outside an interval of percentiles, by a little, where a group is tiny.
    spread = np.maximum(np.stack([values - low, high - values]), 0.0)
    style = {"fmt": "o", "color": color, "markersize": 4.5, "elinewidth": 1.5, "capsize": 2.5}
    if pale is not None and pale.any():
        axis.errorbar(at[pale], values[pale], spread[:, pale], alpha=0.4, **style)
        at, values, spread = at[~pale], values[~pale], spread[:, ~pale]
    return axis.errorbar(at, values, spread, label=label, **style)[0]


def _wordings(axis: Any, whole: Part, colors: Mapping[str, str]) -> None:
    """Draw every score of the originals, hollow, and of the rewordings, filled."""
    step = min(0.3, 0.8 / len(colors))
    for place, (name, color) in enumerate(colors.items()):
        at = np.arange(len(SCORES)) + (place - (len(colors) - 1) / 2) * step
        before, after = ([whole["models"][name][what][score] for score in SCORES] for what in ("original", "reworded"))
        _errorbar(axis, at - step * 0.17, before, color).set_markerfacecolor("white")
        _errorbar(axis, at + step * 0.17, after, color)
    hollow = axis.plot([], [], "o", color=plotting.TRUTH, markerfacecolor="white", markersize=4.5)[0]
    filled = axis.plot([], [], "o", color=plotting.TRUTH, markersize=4.5)[0]
    axis.legend([hollow, filled], ["originals", "rewordings"], loc="upper right")
    axis.set_xticks(range(len(SCORES)), SCORES)
    axis.set(ylabel="percent", title="Scores of both wordings,\nthe same pairs")
    axis.set_ylim(bottom=0)
    axis.grid(axis="x", visible=False)


def _overlap_curve(axis: Any, model: Model, name: str, color: str) -> None:
    """Draw the share of pairs with at least each overlap, over all trainings."""
    found = [(each.moments, each.originals) for each in model.answers[name] if each.originals is not None]
    ious = np.concatenate([temporal_iou(moments[pairs.rows], pairs.moments) for moments, pairs in found])
    grid = np.linspace(0, 1, 201)
    axis.plot(grid, [100 * (ious >= threshold).mean() for threshold in grid], color=color)
