"""Figures of single queries: the annotated and the predicted moments on the video's time line."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from hero_plugin.integrations.figures.style import MUTED, TRUTH, new_figure
from hero_plugin.metrics import temporal_iou


@dataclass(frozen=True)
class ModelView:
    """One model's prediction for a query."""

    name: str
    color: str
    moment: tuple[float, float]
    """Seconds."""
    relevance: np.ndarray
    """(clips,) in [0, 1]."""


def query_figure(
    sentence: str,
    source: str,
    truth: Sequence[tuple[float, float]],
    duration: float,
    views: Sequence[ModelView],
    note: str = "",
) -> Figure:
    """Draw relevance curves above moments, over seconds.

    Args:
        sentence: The query.
        source: Names the query and its video.
        truth: Annotated moments in seconds.
        duration: Seconds of the video.
        views: Predictions, one per model.
        note: Further text about the query, such as its new words.
    """
    bars = 1 + len(views)
    figure, axes = new_figure(8, 2.9 + 0.32 * bars, 2, 1, sharex=True, height_ratios=(3.2, 0.55 * bars + 0.3))
    curve, line = axes[0][0], axes[1][0]
    for start, end in truth:
        curve.axvspan(start, end, color=TRUTH, alpha=0.1, linewidth=0)
        line.axvspan(start, end, color=TRUTH, alpha=0.1, linewidth=0)
        line.barh(0, end - start, left=start, height=0.55, color=TRUTH)
    for place, view in enumerate(views, 1):
        edges = np.linspace(0, duration, len(view.relevance) + 1)
        curve.stairs(view.relevance, edges, color=view.color, baseline=None, linewidth=1.8, label=view.name)
        start, end = view.moment
        line.barh(place, end - start, left=start, height=0.55, color=view.color)
        overlap = max((float(temporal_iou(view.moment, each)) for each in truth), default=float("nan"))
        line.annotate(
            f"IoU {overlap:.2f}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=view.color,
        )
    figure.suptitle("\n".join(textwrap.wrap(f"“{sentence}”", 88)), x=0.01, ha="left", fontsize=11, fontweight="bold")
    curve.set_title(source + (f"   ·   {note}" if note else ""), fontsize=9, fontweight="normal", color=MUTED)
    curve.set(ylabel="clip relevance", ylim=(0, 1.02), xlim=(0, duration))
    curve.legend(loc="upper right", ncols=len(views))
    line.set(xlabel="seconds", ylim=(bars - 0.4, -0.6))
    line.set_yticks(range(bars), ["annotated", *(view.name for view in views)])
    line.grid(axis="y", visible=False)
    line.tick_params(axis="y", length=0)
    return figure
