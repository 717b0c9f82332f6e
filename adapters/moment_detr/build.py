"""Construction of Moment-DETR with its criterion."""

from __future__ import annotations

from hero_plugin.adapters.detr.build import build_criterion
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from hero_plugin.adapters.moment_detr.model import MomentDETR


def build_moment_detr(config: DETRConfig) -> tuple[MomentDETR, SetCriterion]:
    """Build model and criterion as upstream's ``build_model`` does, on the CPU.

    >>> model, criterion = build_moment_detr(MomentDETRConfig(text_dim=512, video_dim=2818))
    >>> losses = criterion(model(**model_inputs), targets)
    >>> loss = sum(losses[k] * criterion.weight_dict[k] for k in losses if k in criterion.weight_dict)
    """
    return MomentDETR(config), build_criterion(config)
