"""Construction of QD-DETR with its criterion."""

from __future__ import annotations

from hero_plugin.adapters.detr.build import build_criterion
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from hero_plugin.adapters.qd_detr.model import QDDETR


def build_qd_detr(config: DETRConfig, use_matcher: bool = True) -> tuple[QDDETR, SetCriterion]:
    """Build model and criterion as upstream's ``build_model`` does, on the CPU.

    Args:
        config: sizes and weights.
        use_matcher: False trains highlights alone, as upstream does for TVSum.

    >>> model, criterion = build_qd_detr(QDDETRConfig(text_dim=512, video_dim=2818))
    >>> losses = criterion(model(**model_inputs), targets)
    >>> loss = sum(losses[k] * criterion.weight_dict[k] for k in losses if k in criterion.weight_dict)
    """
    return QDDETR(config), build_criterion(config, ranks=True, negative_pairs=True, use_matcher=use_matcher)
