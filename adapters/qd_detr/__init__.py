"""QD-DETR."""

from __future__ import annotations

from hero_plugin.adapters.detr.config import QDDETRConfig

__all__ = ["QDDETRConfig"]
