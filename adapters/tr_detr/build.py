"""Construction of TR-DETR with its criterion."""

from __future__ import annotations

from hero_plugin.adapters.detr.build import build_criterion
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from hero_plugin.adapters.tr_detr.model import TRDETR


def build_tr_detr(config: DETRConfig, use_matcher: bool = True) -> tuple[TRDETR, SetCriterion]:
    """Build model and criterion as upstream's ``build_model`` does, on the CPU; with two losses more.

    Upstream's training loop adds VTC and CTC to the criterion's losses. Here they are the criterion's ``loss_vtc`` and
    ``loss_ctc``, so that the loop is the other models': leave upstream's two lines out. CTC needs the query's mask,
    which upstream's loop takes from the model's inputs and the criterion from the targets.

    Args:
        config: sizes and weights.
        use_matcher: False trains highlights (and VTC and CTC) alone, as upstream does for TVSum.

    >>> model, criterion = build_tr_detr(TRDETRConfig(text_dim=512, video_dim=2818))
    >>> targets["src_txt_mask"] = model_inputs["src_txt_mask"]
    >>> losses = criterion(model(**model_inputs), targets)
    >>> loss = sum(losses[k] * criterion.weight_dict[k] for k in losses if k in criterion.weight_dict)
    """
    criterion = build_criterion(config, label_loss="focal", ranks=True, text_alignment=True, use_matcher=use_matcher)
    return TRDETR(config), criterion
