"""L2-SP (Li, Grandvalet and Davoine, ICML 2018): weight decay towards the start instead of zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_plugin.integrations.task import Batch


class L2SP:
    """``1/2 ||w - w0||^2`` over the parameters that learn."""

    def __init__(self, model: nn.Module) -> None:
        self.start = {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        parameters = dict(model.named_parameters())
        return 0.5 * torch.stack([(parameters[name] - old).square().sum() for name, old in self.start.items()]).sum()
