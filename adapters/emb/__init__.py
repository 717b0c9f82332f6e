"""EMB (Elastic Moment Bounding): adapter, and reference implementation that loads upstream checkpoints."""

from hero_plugin.adapters.emb.config import EMBConfig
from hero_plugin.adapters.emb.losses import elastic_threshold
from hero_plugin.adapters.emb.model import EMB

__all__ = ["EMB", "EMBConfig", "elastic_threshold"]
