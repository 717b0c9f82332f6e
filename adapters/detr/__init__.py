"""Parts that Moment-DETR, QD-DETR and TR-DETR share, and adapters of their descendants in lighthouse."""

from hero_plugin.adapters.detr.config import DETRConfig, MomentDETRConfig, QDDETRConfig, TRDETRConfig

__all__ = ["DETRConfig", "MomentDETRConfig", "QDDETRConfig", "TRDETRConfig"]
