"""Attention with dropout on CPU: in blocks it is what the formula says, forwards and backwards."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_plugin.adapters import cpu_ops
from hero_plugin.adapters.cpu_ops import LOWEST, attend_with_bias, drop
from tests.old_torch import HALF_TYPES, needs_compiler


def formula(query, key, value, bias, dropout):
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return drop((scores if bias is None else scores + bias).softmax(-1), dropout) @ value


def heads(batch, length, width, draw):
    return torch.randn(batch, length, 2, width, generator=draw).transpose(1, 2).requires_grad_()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["none", "keys", "pairs", "one for all"]),
    st.sampled_from([1, 40, 400]),
    st.integers(0, 99),
)
def test_blocks_of_any_size_are_the_formula(batch, length, keys, masked, block, seed):
    draw = torch.Generator().manual_seed(seed)
    inputs = heads(batch, length, 3, draw), heads(batch, keys, 3, draw), heads(batch, keys, 4, draw)
    shape = {"keys": (batch, 1, 1, keys), "pairs": (batch, 1, length, keys), "one for all": (1, 1, 1, keys)}.get(masked)
    bias = None if shape is None else (torch.rand(shape, generator=draw) < 0.5).float() * LOWEST  # whole rows, too
    arriving = torch.randn(batch, 2, length, 4, generator=draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_ops, "BLOCK_WEIGHTS", block)
        patch.setattr(cpu_ops, "BLOCKS_FROM", 0)
        ours = attend_with_bias(*inputs, bias, 0.0)
    wanted = formula(*inputs, bias, 0.0)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    gradients = (torch.autograd.grad(result, inputs, arriving) for result in (ours, wanted))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_dropped_weights_are_the_same_backwards(monkeypatch):
    """In one block the draws are those of the formula under the same seed."""
    monkeypatch.setattr(cpu_ops, "BLOCKS_FROM", 0)
    draw = torch.Generator().manual_seed(0)
    inputs = tuple(heads(3, 8, 4, draw) for _ in range(3))
    arriving = torch.randn(3, 2, 8, 4, generator=draw)
    results = []
    for function in (attend_with_bias, formula):
        torch.manual_seed(5)
        context = function(*inputs, None, 0.4)
        results.append((context, *torch.autograd.grad(context, inputs, arriving)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_dropout_drops_its_share_and_scales_the_rest(monkeypatch):
    monkeypatch.setattr(cpu_ops, "BLOCKS_FROM", 0)
    ones = torch.ones(64, 2, 32, 32)
    kept = attend_with_bias(torch.zeros(64, 2, 32, 4), torch.zeros(64, 2, 32, 4), ones, None, 0.25)[..., 0] * 32 * 0.75
    assert abs(kept.mean() / 32 - 0.75) < 0.01 and kept.std() > 1


@needs_compiler
def test_a_compiler_is_given_no_dropout_of_torchs():
    """Compiled for a CPU, that takes three times as long."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph.code)
        return graph

    x = torch.ones(2, 3, 4, 5)
    torch.compile(attend_with_bias, backend=keep, fullgraph=True)(x, x, x, None, 0.4)
    assert len(graphs) == 1 and "randint" in graphs[0] and "dropout" not in graphs[0]


@pytest.mark.slow
@needs_compiler
def test_compiled_it_drops_as_the_formula_does():
    draw = torch.Generator().manual_seed(0)
    inputs = tuple(heads(3, 8, 4, draw) for _ in range(3))
    results = []
    for function in (attend_with_bias, formula):
        torch.manual_seed(5)
        context = torch.compile(function, backend="aot_eager", fullgraph=True)(*inputs, None, 0.4)
        results.append((context, *torch.autograd.grad(context.sin().sum(), inputs)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_without_gradients_the_fused_kernel_agrees():
    draw = torch.Generator().manual_seed(0)
    inputs = tuple(heads(2, 7, 4, draw) for _ in range(3))
    bias = torch.tensor([[0.0] * 7, [0.0] * 3 + [LOWEST] * 4])[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(attend_with_bias(*inputs, bias), formula(*inputs, bias, 0.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_half_precision_shuts_keys_out_and_stays_finite(dtype):
    inputs = tuple(torch.randn(2, 2, 5, 4).to(dtype) for _ in range(3))
    bias = torch.tensor([[0.0, 0.0, LOWEST, LOWEST, LOWEST], [LOWEST] * 5])[:, None, None]
    with torch.no_grad():
        short = attend_with_bias(*(x[:1, :, :2] if i else x[:1] for i, x in enumerate(inputs)), None)
        context = attend_with_bias(*inputs, bias)
    assert context.isfinite().all()
    torch.testing.assert_close(context[:1], short, rtol=2e-2, atol=2e-2)
