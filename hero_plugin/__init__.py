"""HERO for temporal sentence grounding, whose aim is robustness to words that training never had.

>>> from hero_plugin import wrap_model
>>> model = wrap_model(model, levels=4)        # same forward, same outputs
"""

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hero_plugin.adapter import Adapter, First, PassThrough, Seam, known_adapters, register_adapter
    from hero_plugin.adapters.checking import AdapterReport, Finding, check_adapter
    from hero_plugin.aggregation import WeightedAggregation
    from hero_plugin.bridge import Bridge
    from hero_plugin.cmtr import CMTR
    from hero_plugin.config import HeroConfig, config_of
    from hero_plugin.hem import HEM
    from hero_plugin.losses import (
        HeroCriterion,
        PairRelevance,
        clip_labels,
        consistency_loss,
        hero_losses,
        relevance_loss,
        wrap_criterion,
    )
    from hero_plugin.model import HeroModel
    from hero_plugin.plugin import Plugin, PluginError, read_plugin
    from hero_plugin.protocol import Fuser, Grounder, Grounding, Pair, Predictor, TwoStage
    from hero_plugin.sgvf import SGVF
    from hero_plugin.wrap import (
        choose_level,
        export_base,
        from_pretrained,
        hero_state_dict,
        load_plugin,
        save_plugin,
        unwrap_model,
        wrap_model,
    )

__version__ = "0.2.0"

__all__ = ["HeroConfig", "HeroModel", "choose_level", "export_base", "unwrap_model", "wrap_model"]
__all__ += ["CMTR", "HEM", "SGVF", "Bridge", "PairRelevance", "WeightedAggregation"]
__all__ += ["HeroCriterion", "clip_labels", "consistency_loss", "hero_losses", "relevance_loss", "wrap_criterion"]
__all__ += ["Fuser", "Grounder", "Grounding", "Pair", "Predictor", "TwoStage"]
__all__ += ["Adapter", "First", "PassThrough", "Seam", "known_adapters", "register_adapter"]
__all__ += ["AdapterReport", "Finding", "check_adapter"]
__all__ += ["Plugin", "PluginError", "config_of", "from_pretrained", "hero_state_dict", "load_plugin"]
__all__ += ["read_plugin", "save_plugin"]

_MODULES = [module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg]


def __getattr__(name: str) -> Any:
    """Load a public name, or a module, when it is asked for: ``hero-plugin --help`` need not wait for torch."""
    if name in __all__:
        homes = (vars(importlib.import_module(f"{__name__}.{module}")) for module in (*_MODULES, "adapters.checking"))
        return globals().setdefault(name, next(home[name] for home in homes if name in home))
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


_top = Path(__file__).parents[1]
if (_top / "pyproject.toml").is_file() and (_top / "adapters").is_dir():
    # A checkout, where adapters/ and integrations/ stand beside this folder: Python started there finds this copy
    # before an installed one, and would miss them.
    __path__.append(str(_top))
