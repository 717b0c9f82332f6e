"""The authors' own code, from clones, on options that are quick."""

from __future__ import annotations

from argparse import Namespace
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hero_plugin.integrations.tools.bench.upstream import UpstreamEMB, load_upstream_detr, load_upstream_emb
from tests.resources import upstream

CLONES = {
    "moment_detr": ("moment_detr", "moment_detr.model"),
    "qd_detr": ("QD-DETR", "qd_detr.model"),
    "tr_detr": ("TR-DETR", "tr_detr.model"),
    **{
        f"lighthouse.{name}": ("lighthouse", f"lighthouse.common.{name}")
        for name in ("moment_detr", "qd_detr", "tr_detr", "eatr", "cg_detr", "uvcom", "taskweave")
    },
}
"""Name -> (folder under HERO_UPSTREAM, module with ``build_model`` and the classes)."""

UPSTREAM = tuple(name for name in CLONES if "." not in name)
LIGHTHOUSE = tuple(name for name in CLONES if name.startswith("lighthouse."))
CLASSES = {"moment_detr": "MomentDETR", "qd_detr": "QDDETR", "tr_detr": "TRDETR"}


load_emb_from = lru_cache(load_upstream_emb)


def load_emb() -> UpstreamEMB:
    """EMB's class, threshold and runner utilities; skips the test where there is no clone."""
    return load_emb_from(upstream("EMB"))


def load(name: str) -> ModuleType:
    """The module of CLONES' ``name``; skips the test where its clone is not there."""
    folder, module = CLONES[name]
    return load_upstream_detr(upstream(folder), module)


def build(name: str, **options: Any) -> tuple[Any, Any]:
    """Model and criterion by the codebase's own ``build_model``, on its default options but for those given."""
    return load(name).build_model(Namespace(**{**DEFAULTS, **options}))


def sigmoid_focal_loss(inputs: Tensor, targets: Tensor, alpha: float, gamma: float, reduction: str = "none") -> Tensor:
    """torchvision's, from its definition (Lin et al., 2017)."""
    assert reduction == "none"
    probability = inputs.sigmoid()
    right = probability * targets + (1 - probability) * (1 - targets)
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * (1 - right) ** gamma * F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")


DEFAULTS: dict[str, Any] = {
    "device": torch.device("cpu"),
    "dset_name": "hl",
    "t_feat_dim": 12,
    "v_feat_dim": 18,
    "a_feat_dir": None,
    "hidden_dim": 256,
    "nheads": 8,
    "enc_layers": 2,
    "dec_layers": 2,
    "dim_feedforward": 64,
    "position_embedding": "sine",
    "input_dropout": 0.5,
    "dropout": 0.1,
    "num_queries": 10,
    "n_input_proj": 2,
    "max_v_l": 75,
    "max_q_l": 32,
    "use_txt_pos": False,
    "pre_norm": False,
    "aux_loss": True,
    "span_loss_type": "l1",
    "contrastive_align_loss": False,
    "contrastive_hdim": 64,
    "contrastive_align_loss_coef": 0.0,
    "temperature": 0.07,
    "clip_length": 2,
    "lw_saliency": 1.0,
    "saliency_margin": 0.2,
    "set_cost_span": 10,
    "set_cost_giou": 1,
    "set_cost_class": 4,
    "span_loss_coef": 10,
    "giou_loss_coef": 1,
    "label_loss_coef": 4,
    "eos_coef": 0.1,
    # relatives in lighthouse
    "event_coef": 3,
    "t2v_layers": 2,
    "sent_layers": 1,
    "moment_layers": 1,
    "dummy_layers": 2,
    "num_dummies": 5,
    "total_prompts": 10,
    "num_prompts": 2,
    "lw_wattn": 1,
    "lw_ms_align": 1,
    "lw_distill": 1,
    "mr2hd": True,
    "n_txt_mu": 5,
    "n_visual_mu": 30,
    "sim_loss_coef": 1,
    "neg_loss_coef": 0.5,
    "neg_choose_epoch": 80,
    "em_iter": 5,
    "cross_fusion": False,
}
"""Upstream's options; a small feed-forward part and narrow features, for speed."""
