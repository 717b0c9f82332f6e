"""The state of an optimizer, across releases."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hero_plugin.integrations.training.optim import FUSED_ON_CPU, build_optimizer, restore_optimizer


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


@pytest.mark.parametrize("name", ["adam", "adamw", "adamw_all"])
def test_the_fused_kernel_steps_as_the_loop_over_parameters_does(name):
    ends = []
    for fused in (None, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))
        optimizer = build_optimizer(model, name, 0.01, 0.1)
        assert optimizer.defaults["fused"] == FUSED_ON_CPU
        if fused is False:
            for group in optimizer.param_groups:
                group.update(fused=False, foreach=False)
        for step in range(5):
            optimizer.zero_grad()
            model(torch.full((2, 5), 0.1 * step)).square().sum().backward()
            optimizer.step()
        ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_steps_by_the_kernel_of_this_machine(monkeypatch):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    model.offset = nn.Parameter(torch.zeros(1))
    state = two_steps(model)
    monkeypatch.setattr("hero_plugin.integrations.training.optim.FUSED_ON_CPU", False)
    assert two_steps(model, state)["param_groups"][0]["fused"] is False
    assert state["param_groups"][0]["fused"] == FUSED_ON_CPU  # the checkpoint's own is as it was
