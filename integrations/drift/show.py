"""Models by drift, as a person sees them: tables, figures, and what to know of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hero_plugin.bootstrap import FEWEST_VIDEOS
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.drift.models import Model
from hero_plugin.integrations.drift.report import Draws, drift_report
from hero_plugin.integrations.drift.tables import caption, drift_tables

__all__ = ["show_drift"]


def show_drift(models: Sequence[Model], draws: Draws, screen: Screen, figures: Path | None = None) -> dict[str, Any]:
    """Measure, print, and draw into the folder `figures`. Returns the report."""
    with screen.working("drawing intervals", 1):
        report = drift_report(models, draws)
    for table in drift_tables(report):
        screen.show(table)
    screen.say(f"{caption(report)}; none where a group has fewer than {FEWEST_VIDEOS} videos")
    for name, about in report["models"].items():
        if len(about["seeds"]) > 1:
            screen.say(f"{name}: mean over seeds {', '.join(map(str, about['seeds']))}")
    for note in report["notes"]:
        screen.say(f"note: {note}")
    if figures is not None:
        from hero_plugin.integrations.drift.figure import groups_figure, pairs_figure
        from hero_plugin.integrations.figures.style import save_figure

        for name, found in report["sets"].items():
            file = re.sub(r"[^\w.-]+", "_", name)
            if found["groups"]:
                screen.say(f"drawn: {save_figure(groups_figure(report, name), figures / f'{file}-drift.png')}")
            if found["pairs"]:
                screen.say(f"drawn: {save_figure(pairs_figure(report, name, models), figures / f'{file}-pairs.png')}")
    return report
