"""A run as pictures."""

from __future__ import annotations

from hero_plugin.integrations.figures.run_figures import draw_run

__all__ = ["draw_run"]
