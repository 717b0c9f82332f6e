"""Initialization of a training from a trained base."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn

from hero_plugin import HeroModel
from hero_plugin.adapter import adapter_by_weights
from hero_plugin.fingerprint import Fingerprint, forms
from hero_plugin.integrations.checkpoint_contents import Contents, read_contents
from hero_plugin.integrations.errors import UserError


def start_from(model: nn.Module, path: Path, own: Collection[str] = ()) -> str:
    """Give a base, plain or wrapped, the weights of a checkpoint; return a message for the user.

    Args:
        model: The base, or the model around it.
        path: The checkpoint.
        own: Parameters that keep their values because the data decides them, such as a vocabulary's.

    Raises:
        UserError: The checkpoint holds no base, or another one; the message says what differs.
    """
    contents = read_contents(path)
    if not contents.base:
        raise UserError(f"--init-base {path}: {contents.described}, without the weights of a base")
    base = model.base if isinstance(model, HeroModel) else model
    state = {name: value for name, value in base.state_dict().items() if name not in own}
    check_same_base(state, contents, own)
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(contents.base[name])
    message = f"starts from the base in {path} ({contents.described})"
    if isinstance(model, HeroModel) and not model.config.starts_as_base:
        message += "\nnote: the predictions do not start as that base's: " + "; ".join(model.config.departures)
    return message


def check_same_base(state: dict[str, torch.Tensor], contents: Contents, own: Collection[str]) -> None:
    """Raise ``UserError`` unless a checkpoint's base is of the class and sizes of this one."""
    adapter = adapter_by_weights([*state, *own])
    here = Fingerprint(adapter.class_names[0] if adapter else None, None, forms(state))
    tensors = {name: form for name, form in contents.fingerprint.tensors.items() if name not in own}
    there = Fingerprint(contents.fingerprint.class_name, None, tensors)
    lines = [*here.obstacles(there), *here.differences(there)]
    if lines:
        raise UserError(
            f"--init-base {contents.path}: not a checkpoint of this base:\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nGive features, word vectors and sizes as it was trained with, or another checkpoint"
        )
