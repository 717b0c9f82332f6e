"""TR-DETR: adapter, and reference implementation that loads upstream checkpoints."""

from __future__ import annotations

from hero_plugin.adapters.detr.config import TRDETRConfig
from hero_plugin.adapters.tr_detr.build import build_tr_detr
from hero_plugin.adapters.tr_detr.model import TRDETR

__all__ = ["TRDETR", "TRDETRConfig", "build_tr_detr"]
