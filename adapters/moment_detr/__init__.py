"""Moment-DETR."""

from __future__ import annotations

from hero_plugin.adapters.detr.config import MomentDETRConfig

__all__ = ["MomentDETRConfig"]
