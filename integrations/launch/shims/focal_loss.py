"""``torchvision``, of which one loss is used."""

from __future__ import annotations

import importlib
from types import ModuleType

from hero_plugin.adapters.detr.classification import sigmoid_focal_loss
from hero_plugin.integrations.launch.shims import Shim


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
