"""``torchvision``, of which one loss is used."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch.nn.functional as F
from torch import Tensor

from hero_plugin.integrations.launch.shims import Shim


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """Focal loss of each logit on its own (Lin et al., 2017), called as torchvision's.

    inputs, targets: any one shape; alpha: weight of the targets that are 1, negative for none.
    """
    missed = inputs.sigmoid() * (1 - targets) + (-inputs).sigmoid() * targets
    loss = missed.pow(gamma) * F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return {"none": lambda: loss, "mean": loss.mean, "sum": loss.sum}[reduction]()


def _needed() -> bool:
    try:
        importlib.import_module("torchvision.ops.focal_loss")
    except (ImportError, RuntimeError):  # RuntimeError: one that was built for another torch
        return True
    return False


def _stand_in() -> dict[str, ModuleType]:
    vision, ops, focal = (ModuleType(name) for name in ("torchvision", "torchvision.ops", "torchvision.ops.focal_loss"))
    focal.sigmoid_focal_loss = ops.sigmoid_focal_loss = sigmoid_focal_loss  # type: ignore[attr-defined]
    vision.ops, ops.focal_loss = ops, focal  # type: ignore[attr-defined]
    return {module.__name__: module for module in (vision, ops, focal)}


FOCAL_LOSS = Shim(
    name="focal-loss",
    symptom="ModuleNotFoundError: No module named 'torchvision', or one built for another torch, for one loss function",
    repair="a stand-in for torchvision that has sigmoid_focal_loss alone",
    needed=_needed,
    stand_ins=_stand_in,
)
