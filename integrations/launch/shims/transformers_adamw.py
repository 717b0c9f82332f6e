"""``transformers`` without ``AdamW``, which later versions dropped, or without ``transformers`` at all."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch

from hero_plugin.integrations.launch.script import missing
from hero_plugin.integrations.launch.shims import Shim
from hero_plugin.integrations.schedules import linear_decay


class AdamW(torch.optim.AdamW):
    """torch's, with the defaults that transformers' had (``eps=1e-6``, no weight decay)."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def get_linear_schedule_with_warmup(
    optimizer: torch.optim.Optimizer, num_warmup_steps: float, num_training_steps: int, last_epoch: int = -1
) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate rises from 0, then falls straight to 0."""
    warmup = round(num_warmup_steps)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_decay(step, num_training_steps, warmup), last_epoch
    )


def _needed() -> bool:
    return missing("transformers") or not hasattr(importlib.import_module("transformers"), "AdamW")


def _stand_in() -> dict[str, ModuleType]:
    stand_in = ModuleType("transformers")
    stand_in.AdamW = AdamW  # type: ignore[attr-defined]
    stand_in.get_linear_schedule_with_warmup = get_linear_schedule_with_warmup  # type: ignore[attr-defined]
    return {"transformers": stand_in}


TRANSFORMERS_ADAMW = Shim(
    name="transformers-adamw",
    symptom="ImportError: cannot import name 'AdamW' from 'transformers', whose later versions dropped it",
    repair="a stand-in for transformers, with torch's AdamW under the same defaults and the linear schedule",
    needed=_needed,
    stand_ins=_stand_in,
)
