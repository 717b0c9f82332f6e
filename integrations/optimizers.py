"""The paper's optimizer, and the one that EMB's published code uses."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["adam", "adamw"]


def build_optimizer(
    model: nn.Module, name: OptimizerName, lr: float, weight_decay: float, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Adam or AdamW over the parameters that learn.

    ``adam`` is the paper's text and takes no weight decay. ``adamw`` is EMB's code: decay on everything
    but biases and layer norms, told by name as upstream does.
    """
    named = [(key, parameter) for key, parameter in model.named_parameters() if parameter.requires_grad]
    if name == "adam":
        return torch.optim.Adam([parameter for _, parameter in named], lr=lr, fused=fused)
    if name == "adamw":
        exempt = ("bias", "layer_norm", "LayerNorm")
        plain = [parameter for key, parameter in named if any(part in key for part in exempt)]
        decayed = [parameter for key, parameter in named if not any(part in key for part in exempt)]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    raise ValueError(f"optimizer must be 'adam' or 'adamw', got {name!r}")
