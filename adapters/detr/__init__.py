"""Parts that Moment-DETR, QD-DETR and TR-DETR share."""

from __future__ import annotations

from hero_plugin.adapters.detr.config import DETRConfig, MomentDETRConfig, QDDETRConfig, TRDETRConfig

__all__ = ["DETRConfig", "MomentDETRConfig", "QDDETRConfig", "TRDETRConfig"]
