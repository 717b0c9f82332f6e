"""HERO for temporal sentence grounding: make a model robust to words it never saw in training.

>>> from hero_plugin import wrap_model
>>> model = wrap_model(model, levels=4)        # same forward, same outputs, same training loop
"""

from pathlib import Path

from hero_plugin._compat import check_torch, checkout_folders
from hero_plugin.adapter import Adapter, First, PassThrough, Seam, known_adapters, register_adapter
from hero_plugin.aggregation import WeightedAggregation
from hero_plugin.cmtr import CMTR
from hero_plugin.config import HeroConfig, config_of
from hero_plugin.hem import HEM
from hero_plugin.losses import HeroCriterion, clip_labels, consistency_loss, hero_losses, relevance_loss, wrap_criterion
from hero_plugin.model import HeroModel
from hero_plugin.plugin_file import Plugin, PluginError, load_plugin, read_plugin, save_plugin
from hero_plugin.protocol import Fuser, Grounder, Grounding, Pair, Predictor, TwoStage
from hero_plugin.relevance import PairRelevance
from hero_plugin.sgvf import SGVF
from hero_plugin.wrap import hero_state_dict, unwrap_model, wrap_model

check_torch()
__path__ += checkout_folders(Path(__file__).parent)

__version__ = "0.2.0"

__all__ = [
    "CMTR",
    "HEM",
    "SGVF",
    "Adapter",
    "First",
    "Fuser",
    "Grounder",
    "Grounding",
    "HeroConfig",
    "HeroCriterion",
    "HeroModel",
    "Pair",
    "PairRelevance",
    "PassThrough",
    "Plugin",
    "PluginError",
    "Predictor",
    "Seam",
    "TwoStage",
    "WeightedAggregation",
    "clip_labels",
    "config_of",
    "consistency_loss",
    "hero_losses",
    "hero_state_dict",
    "known_adapters",
    "load_plugin",
    "read_plugin",
    "register_adapter",
    "relevance_loss",
    "save_plugin",
    "unwrap_model",
    "wrap_criterion",
    "wrap_model",
]
