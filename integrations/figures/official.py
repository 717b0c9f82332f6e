"""A figure of the official QVHighlights scores of a submission."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from hero_plugin.highlights import LEVELS
from hero_plugin.integrations.figures.style import CYCLE, HERO, MUTED, SETTINGS, new_figure, save_figure
from hero_plugin.retrieval import LENGTHS, OVERLAPS


def draw_official(scores: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Draw precision and recall by required overlap, precision and hit rate by level; those that there are."""
    panels = [draw for name, draw in (("full", _retrieval), ("HL-min-Fair", _highlights)) if name in scores]
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(5.2 * len(panels), 3.8, 1, len(panels))
        for draw, axis in zip(panels, axes[0], strict=True):
            draw(axis, scores)
            axis.set_ylabel("percent")
            axis.set_ylim(bottom=0)
        return save_figure(figure, path)


def _retrieval(axis: Any, scores: Mapping[str, Mapping[str, Any]]) -> None:
    for name, color in zip(reversed(LENGTHS), CYCLE, strict=False):
        means = [scores[name]["MR-mAP"][str(overlap)] for overlap in OVERLAPS]
        axis.plot(OVERLAPS, means, color=color, marker="o", markersize=3, label=f"mAP, {name}")
    recalls = [scores["full"]["MR-R1"][str(overlap)] for overlap in OVERLAPS]
    axis.plot(OVERLAPS, recalls, color=HERO, linestyle=":", label="R1, full")
    axis.set(title="Moment retrieval", xlabel="required overlap")
    axis.legend()


def _highlights(axis: Any, scores: Mapping[str, Mapping[str, Any]]) -> None:
    for shift, (key, label, color) in ((-0.2, ("HL-mAP", "mAP", HERO)), (0.2, ("HL-Hit1", "HIT@1", MUTED))):
        values = [scores[f"HL-min-{name}"][key] for name in LEVELS]
        bars = axis.bar([place + shift for place in range(len(LEVELS))], values, width=0.38, color=color, label=label)
        axis.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axis.set_xticks(range(len(LEVELS)), [f"{name}\n(score {level}+)" for name, level in LEVELS.items()])
    axis.grid(axis="x", visible=False)
    axis.margins(y=0.12)
    axis.set_title("Highlights")
    axis.legend(loc="upper right")
