"""The DETRs' rectifier is PyTorch's, number for number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hero_plugin.adapters.cpu_ops import PReLU


def gradients(module: nn.Module, input: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """Output, and the gradients of the input and of the slope."""
    input = input.clone().requires_grad_()
    output = module(input)
    output.backward(grad)
    return output.detach(), input.grad, module.weight.grad


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=2, max_size=3),
    slope=st.sampled_from([0.25, 0.0, 1.0, -0.5]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    transposed=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_numbers(shape, slope, dtype, transposed, seed):
    torch.manual_seed(seed)
    input, grad = torch.randn(2, *shape, dtype=dtype).round(decimals=1)  # with some zeros
    if transposed:
        input, grad = input.transpose(0, 1), grad.transpose(0, 1)
    ours = PReLU(init=slope).to(dtype)
    theirs = nn.PReLU(init=slope).to(dtype)
    output, of_input, of_slope = gradients(ours, input, grad)
    their_output, of_their_input, of_their_slope = gradients(theirs, input, grad)
    assert torch.equal(output, their_output)
    assert torch.equal(of_input, of_their_input)
    torch.testing.assert_close(of_slope, of_their_slope)


def test_gradients_are_those_of_its_values():
    module = PReLU().double()
    input = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def values(input: Tensor, slope: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"weight": slope}, (input,))

    assert torch.autograd.gradcheck(values, (input, module.weight))


def test_other_uses_are_pytorchs():
    ours, theirs = PReLU(3), nn.PReLU(3)
    input = torch.randn(2, 3, 5)
    for one, other in zip(gradients(ours, input, input), gradients(theirs, input, input), strict=True):
        assert torch.equal(one, other)
    assert list(PReLU().state_dict()) == ["weight"]
    with torch.no_grad():
        assert not PReLU()(input).requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        linear = nn.Linear(5, 4)
        assert PReLU()(linear(input)).dtype == nn.PReLU()(linear(input)).dtype


@pytest.mark.parametrize("freeze", [False, True])
def test_a_frozen_slope(freeze):
    module = PReLU()
    module.weight.requires_grad_(not freeze)
    input = torch.tensor([-2.0, 3.0], requires_grad=True)
    module(input).sum().backward()
    assert torch.equal(input.grad, torch.tensor([0.25, 1.0]))
    assert (module.weight.grad is None) == freeze
