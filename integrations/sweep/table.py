"""Scores of a sweep's finished runs, over their seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from hero_plugin.integrations.sweep.further import further_scores
from hero_plugin.integrations.sweep.paired import compare
from hero_plugin.integrations.sweep.paired import markdown as paired_markdown
from hero_plugin.integrations.sweep.plan import Plan
from hero_plugin.metrics import SCORES

__all__ = ["METRICS", "collect", "columns_of", "markdown"]

METRICS = (*SCORES, "MR-full-mAP", "HL-min-VeryGood-mAP")
"""What the table has a column for, in this order: the last two on QVHighlights only."""


def collect(plan: Plan, checkpoint: str) -> dict[str, Any]:
    """Scores of the finished runs: ``{set: {variant: {"seeds": [...], metric: {"mean", "std", "values"}}}}``.

    And the differences of the plan's pairs, by set: see :func:`~hero_plugin.integrations.sweep.paired.compare`.
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
