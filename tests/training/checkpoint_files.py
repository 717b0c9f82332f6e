"""Checkpoints as the published training scripts lay them out."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hero_plugin.integrations.training.checkpoints import supported


def detr_checkpoint(model: nn.Module, opt: Any = None) -> dict[str, Any]:
    """As ``train.py`` of Moment-DETR and its heirs saves it; of lighthouse with its settings in ``opt``.

    Skips the test where torch cannot read it again.
    """
    if not supported():
        pytest.skip("torch before 2.4 cannot read settings safely")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 400)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 3,
        "opt": opt or Namespace(dset_name="hl", hidden_dim=16, device=torch.device("cpu"), v_feat_dirs=["a", "b"]),
    }


def emb_checkpoint(model: nn.Module) -> dict[str, Any]:
    """As EMB's ``main.py`` saves it."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    return {"epoch": 2, "step": 9, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path
