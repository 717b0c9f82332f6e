"""Clocks, counts and memory of steps whose figures are known."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hero_plugin.adapters.emb.layers import bidirectional_lstm
from hero_plugin.integrations.tools.bench.measure import (
    LiveBytes,
    Operations,
    Quartiles,
    count_kernels,
    peak_memory,
    time_in_turns,
)
from hero_plugin.integrations.tools.bench.models import Workload
from tests.old_torch import counts_flops

pytestmark = counts_flops

CPU = torch.device("cpu")
FLOAT = 4


def flops(step) -> int:
    with Operations() as operations:
        step()
    return operations.flops


def test_models_take_turns_and_warm_up():
    calls, ticks = [], []
    steps = [lambda name=name: calls.append(name) for name in ("a", "b")]
    times = time_in_turns(steps, warmup=1, turns=2, device=CPU, after_step=lambda: ticks.append(1))
    assert calls == ["a", "b"] * 3 and len(ticks) == 6
    assert all(len(values) == 2 and min(values) >= 0 for values in times)


def test_ratios_are_of_the_same_turn():
    """A machine ten times slower in the second turn slows both, and changes no ratio."""
    assert Quartiles.of_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == (2.0, 2.0, 2.0)
    assert Quartiles.of([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_flops_of_a_linear_layer():
    layer, x = nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    forward = 2 * 3 * 5 * 7
    assert flops(lambda: layer(x)) == forward
    assert flops(lambda: layer(x).sum().backward()) == 3 * forward


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("layer", [nn.Conv1d, nn.ConvTranspose1d])
def test_flops_of_a_convolution_in_groups(layer, groups):
    """Each gradient, of the input and of the weights, costs a forward."""
    convolution, x = layer(4, 8, 3, groups=groups), torch.randn(2, 4, 9, requires_grad=True)
    forward = flops(lambda: convolution(x))
    outer = 7 if layer is nn.Conv1d else 9
    assert forward == 2 * 2 * outer * 3 * 4 * 8 // groups
    assert flops(lambda: convolution(x).sum().backward()) == 3 * forward
    assert flops(lambda: convolution(x.detach()).sum().backward()) == 2 * forward


def test_fused_attention_counts_like_its_products():
    q, k, v = (torch.randn(2, 4, length, 8, requires_grad=True) for length in (6, 9, 9))
    fused = flops(lambda: F.scaled_dot_product_attention(q, k, v))
    assert fused == flops(lambda: (q @ k.transpose(-1, -2)).softmax(-1) @ v) == 2 * 2 * 2 * 4 * 6 * 9 * 8
    # The backward computes the scores once more.
    assert flops(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward()) == fused + 5 * fused // 2


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_a_fused_recurrent_layer_counts_like_its_products():
    batch, steps, width = 3, 5, 8
    rnn = nn.LSTM(width, width, batch_first=True, bidirectional=True)
    x = torch.randn(batch, steps, width, requires_grad=True)
    lengths = torch.full((batch,), steps)
    forward = 2 * (2 * batch * steps) * (4 * width) * (2 * width)
    with torch.no_grad():
        assert flops(lambda: bidirectional_lstm(rnn, x, lengths)) == forward
    assert flops(lambda: bidirectional_lstm(rnn, x, lengths).sum().backward()) == 3 * forward


def test_operators_of_forward_and_backward():
    x = torch.randn(3, requires_grad=True)
    with Operations() as operations:
        x.exp().sum().backward()
    assert operations.counts["aten.exp.default"] == 1 and operations.counts["aten.mul.Tensor"] == 1
    assert operations.total == sum(operations.counts.values())


def test_memory_is_counted_until_the_last_view_is_gone():
    with LiveBytes() as live:
        x = torch.zeros(1000)
        view = x[10:20]
        assert live.live == 1000 * FLOAT
        del x
        assert live.live == 1000 * FLOAT
        y = torch.zeros(500)
        del view
        assert live.live == 500 * FLOAT
    assert live.peak == 1500 * FLOAT
    del y


def test_what_autograd_keeps_is_memory():
    x = torch.randn(1000, requires_grad=True)
    with LiveBytes() as live:
        y = x
        for _ in range(3):
            y = y.exp()  # each result is kept for the backward
        assert live.live == 3 * 1000 * FLOAT
        with torch.no_grad():
            z = x
            for _ in range(3):
                z = z.exp()
        assert live.live == 4 * 1000 * FLOAT
    del y, z


@pytest.mark.slow
def test_what_a_step_holds_counts_and_what_it_frees_does_not():
    gradient = [torch.zeros(1000)]

    def step() -> None:
        gradient.clear()
        gradient.append(torch.ones(1000))

    weights = torch.zeros(300)
    assert LiveBytes([weights, weights[:10], *gradient]).live == 1300 * FLOAT
    assert peak_memory(step, iter([weights, weights[:10]]), CPU) == 1300 * FLOAT
    assert peak_memory(step, chain([weights], gradient), CPU) == 1300 * FLOAT
    assert peak_memory(lambda: None, iter(()), CPU) == 0


@pytest.mark.slow
def test_gradients_of_the_step_before_make_room():
    """Weights, Adam's two moments and one set of gradients: not two."""
    layer = nn.Linear(1000, 100, bias=False)
    x = torch.randn(2, 1000)
    task: Any = SimpleNamespace(model=layer, losses=lambda model, batch, epoch: {"loss": model(batch["x"]).sum()})
    workload = Workload(task, {"x": x}, torch.optim.Adam(layer.parameters(), foreach=False), 1.0, "none", CPU)
    workload.step()()
    weights = 100 * 1000 * FLOAT
    assert peak_memory(lambda: None, workload.held(), CPU) == 4 * weights + x.nbytes + FLOAT
    forward_and_backward = peak_memory(
        lambda: (workload.optimizer.zero_grad(), layer(x).sum().backward()), workload.held(), CPU
    )
    assert 4 * weights < forward_and_backward < 4.1 * weights


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_and_kernels_on_a_gpu():
    device = torch.device("cuda")
    x, other = torch.zeros(1 << 20, device=device), torch.zeros(1 << 22, device=device)
    peak = peak_memory(lambda: x * 2 + 1, iter([x]), device)
    assert 3 * x.nbytes <= peak < 3 * x.nbytes + other.nbytes
    assert count_kernels(lambda: x * 2 + 1, device) == 2
