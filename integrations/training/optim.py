"""Optimizers and learning rates: the paper's, and those of the bases' published code.

A schedule is a function of the step, so that resuming needs no state of it.
"""

from typing import Any, Literal

import torch
from packaging.version import Version
from torch import nn

OptimizerName = Literal["adam", "adamw", "adamw_all"]
Schedule = Literal["linear", "step"]
FUSED_ON_CPU = Version(torch.__version__) >= Version("2.4")


def build_optimizer(model: nn.Module, name: OptimizerName, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Build Adam or AdamW over the trainable parameters, as one kernel where torch has it for their device.

    ``adam`` follows the paper's text and has no weight decay. ``adamw`` follows EMB's code: decay on everything but
    biases and layer norms, recognized by name as upstream does, which misses norms with other names; of the plug-in,
    on weight matrices alone. ``adamw_all`` follows Moment-DETR and its successors: decay on every parameter.
    """
    named = [(key, parameter) for key, parameter in model.named_parameters() if parameter.requires_grad]
    everything = [parameter for _, parameter in named]
    devices = {parameter.device.type for parameter in everything}
    fused = devices == {"cuda"} or (devices == {"cpu"} and FUSED_ON_CPU)
    if name == "adam":
        return torch.optim.Adam(everything, lr=lr, fused=fused)
    if name == "adamw_all":
        return torch.optim.AdamW(everything, lr=lr, weight_decay=weight_decay, fused=fused)
    if name == "adamw":
        plain = [parameter for key, parameter in named if _exempt(key, parameter)]
        decayed = [parameter for key, parameter in named if not _exempt(key, parameter)]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    raise ValueError(f"optimizer must be 'adam', 'adamw' or 'adamw_all', got {name!r}")


def _exempt(name: str, parameter: nn.Parameter) -> bool:
    if name.startswith("hero."):
        return parameter.ndim < 2 or name.endswith((".strength", ".mask_token"))
    return any(part in name for part in ("bias", "layer_norm", "LayerNorm"))


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state_dict, also of an older run, in which parameters of one number were scalars.

    The kernel stays the one that it was built with: this device may lack that of the run.
    """
    kernels = [{"fused": group["fused"]} for group in optimizer.param_groups]
    groups = [{**group, **kernel} for group, kernel in zip(state["param_groups"], kernels, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, kept in optimizer.state.items():
        kept.update({name: kept[name].view_as(parameter) for name in ("exp_avg", "exp_avg_sq") if name in kept})


def linear_decay(step: int, total: int, warmup: int = 0) -> float:
    """Return the factor on the learning rate: up from 0 over ``warmup`` steps, then straight down to 0 at ``total``."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def step_decay(step: int, period: int, warmup: int = 0) -> float:
    """Return a factor that rises from 0 over ``warmup`` steps, then drops to a tenth after every ``period`` steps."""
    rise = min(1.0, step / warmup) if warmup else 1.0
    return rise * 0.1 ** (step // period)
