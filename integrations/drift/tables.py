"""The report on drift as tables: scores by group, wordings in pairs, consistency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from hero_plugin.consistency import CONSISTENCY
from hero_plugin.metrics import SCORES

__all__ = ["caption", "drift_tables", "group_name", "worth_a_row"]

Figure = Mapping[str, Any]


def drift_tables(report: Mapping[str, Any]) -> list[Table]:
    """Of each set: the scores by group and, where there are pairs, the scores of both wordings and the consistency."""
    tables = []
    for name, found in report["sets"].items():
        if found["groups"]:
            tables.append(_scores_table(f"{name}, by drift", report, found["groups"]))
        if found["pairs"]:
            tables.append(_wordings_table(f"{name}, the same pairs in both wordings", report, found["pairs"]))
            tables.append(_consistency_table(f"{name}, does the answer move?", report, found["pairs"]))
    return tables


def caption(report: Mapping[str, Any]) -> str:
    """What the intervals are."""
    interval = report["interval"]
    return (
        f"percent [{100 * interval['level']:.0f} % interval of {interval['resamples']:,} draws of {interval['drawn']}]"
    )


def group_name(part: Mapping[str, Any]) -> str:
    if part["by"] == "unseen words":
        return f"{part['group']} unseen"
    return f"part: {part['group']}" if part["by"] == "part" else str(part["group"])


def _scores_table(title: str, report: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(title, ("group", "queries", "videos", *_model_column(report)), SCORES)
    for part in worth_a_row(parts):
        counts = (group_name(part), f"{part['queries']:,}", f"{part['videos']:,}")
        _add_models(table, counts, report, part, SCORES, lambda figures: figures)
    return table


def _wordings_table(title: str, report: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> Table:
    """Both wordings of all pairs; of the groups, what the rewording changes."""
    table = _table(title, ("group", "pairs", "wording", *_model_column(report)), SCORES)
    for part in worth_a_row(parts):
        counts = (group_name(part), f"{part['queries']:,}")
        for what in ("original", "reworded", "change") if part["by"] == "all" else ("change",):
            start, signed = (*counts, what), what == "change"
            _add_models(table, start, report, part, SCORES, lambda figures, what=what: figures[what], signed)
            counts = ("", "")
    return table


def _consistency_table(title: str, report: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(title, ("group", "pairs", *_model_column(report)), CONSISTENCY)
    for part in worth_a_row(parts):
        counts = (group_name(part), f"{part['queries']:,}")
        _add_models(table, counts, report, part, CONSISTENCY, lambda figures: figures["consistency"])
    return table


def worth_a_row(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The groups that have queries, less those kinds of change, and those parts, that are all there is."""
    every = parts[0]["queries"]
    return [
        part for part in parts if part["queries"] and (part["by"] not in ("change", "part") or part["queries"] != every)
    ]


def _add_models(
    table: Table,
    start: tuple[str, ...],
    report: Mapping[str, Any],
    part: Mapping[str, Any],
    names: Sequence[str],
    pick: Any,
    signed: bool = False,
) -> None:
    """A row a model, each difference under its model; the first cells stand in the first row only."""
    several = len(report["models"]) > 1
    for model, about in report["models"].items():
        label = (model,) if several else ()
        table.add_row(*start, *label, *(_cell(pick(part["models"][model])[name], signed) for name in names))
        start = ("",) * len(start)
        if model in part["differences"]:
            figures = pick(part["differences"][model])
            cells = (_cell(figures[name], True) for name in names)
            table.add_row(*start, f"  minus {about['compared_with']}", *cells, style="italic")
    if several:
        table.add_section()


def _cell(figure: Figure, signed: bool) -> str:
    if figure["value"] is None:
        return "-"
    sign = "+" if signed else ""
    value, low, high = (
        None if figure[key] is None else f"{round(figure[key], 1) + 0.0:{sign}.1f}" for key in ("value", "low", "high")
    )
    return f"{value}" if low is None else f"{value} [{low},{high}]"


def _model_column(report: Mapping[str, Any]) -> tuple[str, ...]:
    return ("model",) if len(report["models"]) > 1 else ()


def _table(title: str, first: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in first:
        table.add_column(name, justify="right" if name in ("queries", "videos", "pairs") else "left", overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", overflow="fold")
    return table
