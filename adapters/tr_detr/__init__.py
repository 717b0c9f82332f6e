"""TR-DETR."""

from __future__ import annotations

from hero_plugin.adapters.detr.config import TRDETRConfig

__all__ = ["TRDETRConfig"]
