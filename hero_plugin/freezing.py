"""A base that does not learn while the plug-in does, and comes back as it was."""

from __future__ import annotations

from torch import nn


class Frozen:
    """What a base was before it was frozen: which parameters learned, and the mode of each part.

    A frozen base is deterministic: its parts stay in eval mode, whatever mode the wrapped model is in. Gradients pass
    through it to the plug-in.
    """

    def __init__(self, base: nn.Module) -> None:
        self.learned = {name: parameter.requires_grad for name, parameter in base.named_parameters()}
        self.modes = {name: module.training for name, module in base.named_modules()}
        base.requires_grad_(False)

    def hold(self, base: nn.Module, training: bool) -> None:
        """Put in eval mode every part that draws or that keeps statistics.

        Args:
            base: the base.
            training: whether a backward will follow.
        """
        base.eval()
        for module in base.modules() if training else ():
            # cuDNN has no backward for a recurrent layer in eval mode; where it drops nothing the modes are the same.
            if isinstance(module, nn.RNNBase) and (module.num_layers == 1 or module.dropout == 0):
                module.training = True

    def undo(self, base: nn.Module) -> None:
        """Give every part of the base its state from before."""
        for name, parameter in base.named_parameters():
            parameter.requires_grad_(self.learned.get(name, parameter.requires_grad))
        for name, module in base.named_modules():
            module.training = self.modes.get(name, module.training)
