"""Variants of a model over several seeds: their runs, and one table of them."""

from hero_plugin.integrations.tools.sweep.sweep import SweepConfig, main

__all__ = ["SweepConfig", "main"]
