"""What HERO changes on a base for a while, and puts back: who learns, modes, running statistics."""

from __future__ import annotations

from typing import Any

from torch import nn


class Frozen:
    """The state that a base had before it was frozen: which parameters were trainable, and the mode of each module.

    A frozen base is deterministic: its modules stay in eval mode, whatever mode the wrapped model is in. Gradients
    pass through it to the plug-in.
    """

    def __init__(self, base: nn.Module) -> None:
        self.trainable = {name: parameter.requires_grad for name, parameter in base.named_parameters()}
        self.modes = {name: module.training for name, module in base.named_modules()}
        base.requires_grad_(False)

    def keep_in_eval(self, base: nn.Module, backward: bool) -> None:
        """Put every module that draws or keeps statistics in eval mode; ``backward``: whether one will follow."""
        base.eval()
        for module in base.modules() if backward else ():
            # cuDNN has no backward for a recurrent layer in eval mode; where it drops nothing the modes are the same.
            if isinstance(module, nn.RNNBase) and (module.num_layers == 1 or module.dropout == 0):
                module.training = True

    def restore(self, base: nn.Module) -> None:
        """Give every parameter and module of the base its state from before; new ones keep theirs."""
        for name, parameter in base.named_parameters():
            parameter.requires_grad_(self.trainable.get(name, parameter.requires_grad))
        for name, module in base.named_modules():
            module.training = self.modes.get(name, module.training)


class KeepStatistics:
    """Context in which the running statistics of a base's modules (a batch norm's) stay as they are."""

    def __init__(self, base: nn.Module) -> None:
        self.base = base
        self.kept: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        names = ("running_mean", "running_var", "num_batches_tracked")
        buffers = [module._buffers for module in self.base.modules() if module.training]
        self.kept = [(each, name, each[name]) for each in buffers for name in names if each.get(name) is not None]
        for each, name, value in self.kept:
            each[name] = value.clone()

    def __exit__(self, *error: Any) -> None:
        for each, name, value in self.kept:
            each[name] = value
