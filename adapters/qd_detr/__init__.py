"""QD-DETR: adapter, and reference implementation that loads upstream checkpoints."""

from __future__ import annotations

from hero_plugin.adapters.detr.config import QDDETRConfig
from hero_plugin.adapters.qd_detr.build import build_qd_detr
from hero_plugin.adapters.qd_detr.model import QDDETR

__all__ = ["QDDETR", "QDDETRConfig", "build_qd_detr"]
