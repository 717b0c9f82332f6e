"""The largest value before and after each clip, against a maximum over every pair of clips."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.adapters.cpu_ops import max_after, max_before


@given(
    clips=st.integers(1, 9),
    few=st.booleans(),
    backwards=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_values_and_gradients_are_those_of_cummax(clips, few, backwards, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, clips, 3, generator=generator, dtype=torch.float64)
    x = x.round() if few else x  # ties
    x.requires_grad_()
    weight = torch.randn(2, clips, 3, generator=generator, dtype=torch.float64)

    found = (max_after if backwards else max_before)(x)
    turned = x.flip(1) if backwards else x
    lowest = turned.new_full((2, 1, 3), torch.finfo(x.dtype).min)
    expected = torch.cat([lowest, turned], dim=1)[:, :-1].cummax(dim=1).values
    expected = expected.flip(1) if backwards else expected

    assert torch.equal(found, expected)
    (ours,) = torch.autograd.grad((found * weight).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_walk_is_the_definition():
    x = torch.tensor([[[3.0], [1.0], [4.0], [1.0]]])
    lowest = torch.finfo(torch.float32).min
    assert max_before(x).flatten().tolist() == [lowest, 3.0, 3.0, 4.0]
    assert max_after(x).flatten().tolist() == [4.0, 4.0, 1.0, lowest]
