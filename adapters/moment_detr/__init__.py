"""Moment-DETR: adapter, and reference implementation that loads upstream checkpoints."""

from __future__ import annotations

from hero_plugin.adapters.detr.config import MomentDETRConfig
from hero_plugin.adapters.moment_detr.build import build_moment_detr
from hero_plugin.adapters.moment_detr.model import MomentDETR

__all__ = ["MomentDETR", "MomentDETRConfig", "build_moment_detr"]
