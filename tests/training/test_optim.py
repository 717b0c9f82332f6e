"""The state of an optimizer, across releases."""

from __future__ import annotations

import torch
from torch import nn

from hero_plugin.integrations.training.optim import build_optimizer, restore_optimizer


def two_steps(model, state=None):
    optimizer = build_optimizer(model, "adam", 0.1, 0.0)
    if state is not None:
        restore_optimizer(optimizer, state)
    for _ in range(2):
        optimizer.zero_grad()
        (model(torch.ones(2, 2)) + model.offset).square().sum().backward()
        optimizer.step()
    return optimizer.state_dict()


def test_an_older_run_whose_numbers_were_scalars_goes_on_as_it_would_have():
    ends = []
    for shape in ((), (1,)):
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        model.offset = nn.Parameter(torch.zeros(()))
        state = two_steps(model)
        model.offset = nn.Parameter(model.offset.detach().view(shape))
        two_steps(model, state)
        ends.append(model.offset.item())
    assert ends[0] == ends[1]
