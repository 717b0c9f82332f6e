"""Criterion and loss weights of a configuration."""

from __future__ import annotations

from typing import Any

from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from hero_plugin.adapters.detr.matcher import HungarianMatcher


def build_criterion(config: DETRConfig, *, text_alignment: bool = False, **options: Any) -> SetCriterion:
    """Build the criterion of a model; ``options`` are those of ``SetCriterion`` that no config has."""
    matcher = HungarianMatcher(
        cost_class=config.set_cost_class,
        cost_span=config.set_cost_span,
        cost_giou=config.set_cost_giou,
        span_loss_type=config.span_loss_type,
        max_v_l=config.max_v_l,
    )
    return SetCriterion(
        matcher,
        loss_weights(config, text_alignment),
        eos_coef=config.eos_coef,
        saliency_margin=config.saliency_margin,
        contrastive_align=config.contrastive_align_loss,
        temperature=config.temperature,
        text_alignment=text_alignment,
        **options,
    )


def loss_weights(config: DETRConfig, text_alignment: bool = False) -> dict[str, float]:
    """Return the weight of every loss by its name; the decoder's earlier layers weigh as much as its last."""
    by_layer = {
        "loss_span": config.span_loss_coef,
        "loss_giou": config.giou_loss_coef,
        "loss_label": config.label_loss_coef,
    }
    if config.contrastive_align_loss:
        by_layer["loss_contrastive_align"] = config.contrastive_align_loss_coef
    weights = {**by_layer, "loss_saliency": config.lw_saliency}
    if text_alignment:
        weights.update(loss_vtc=config.vtc_loss_coef, loss_ctc=config.ctc_loss_coef)
    if config.aux_loss:
        for layer in range(config.dec_layers - 1):
            weights.update({f"{name}_{layer}": weight for name, weight in by_layer.items()})
    return weights
