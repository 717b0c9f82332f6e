"""The seam: a base's own forward with parts replaced, at any depth, and nothing left on the base."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hero_plugin import PassThrough, Seam


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.second(self.first(x))


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.inner, self.scale = nn.Linear(3, 3), Inner(), 1.0

    def forward(self, x):
        return self.shift(self.inner(self.project(x))) * self.scale

    def shift(self, x):
        return x + 1


@pytest.fixture
def base():
    return Outer()


def test_a_part_is_lifted_out(base):
    x = torch.randn(2, 3)
    assert torch.equal(Seam(base, project=PassThrough())(base.project(x)), base(x))


def test_a_part_of_a_part(base):
    x = torch.randn(2, 3)
    seam = Seam(base, **{"inner.first": PassThrough(), "project": PassThrough()})
    assert torch.equal(seam(x), base.inner.second(x) + 1)
    base.inner = Inner()
    assert torch.equal(seam(x), base.inner.second(x) + 1)
    base.inner.scale = base.scale = 2.0
    assert torch.equal(seam(x), (base.inner.second(x) + 1) * 2)


def test_a_method(base):
    x = torch.randn(2, 3)
    assert torch.equal(Seam(base, shift=abs)(x), base.inner(base.project(x)).abs())
    assert torch.equal(base.shift(x), x + 1)


class Asking(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Dropout(1.0)

    def forward(self, x):
        return self.training, self.inner(x)


@pytest.mark.parametrize("mode", [False, True])
def test_a_forward_that_runs_as_in_training(mode):
    """The base, and its parts inside, stay in the mode that they are in."""
    base, x = Asking().train(mode), torch.ones(3)
    training, inside = Seam(base, training=True)(x)
    assert training and torch.equal(inside, base.inner(x))
    assert Seam(base)(x)[0] == base.training == mode


def test_the_base_keeps_everything(base):
    before = [(name, id(module)) for name, module in base.named_modules()], sorted(vars(base)), list(base.state_dict())
    Seam(base, shift=abs, **{"inner.first": PassThrough(), "project": PassThrough()})(torch.randn(2, 3))
    assert before == (
        [(name, id(module)) for name, module in base.named_modules()],
        sorted(vars(base)),
        list(base.state_dict()),
    )


def test_hooks_on_the_way_are_called(base):
    seen = []
    base.inner.register_forward_hook(lambda *_: seen.append("inner"))
    base.inner.second.register_forward_hook(lambda *_: seen.append("second"))
    Seam(base, **{"inner.first": PassThrough()})(torch.randn(2, 3))
    assert seen == ["second", "inner"]


def test_a_part_that_is_not_there_is_named(base):
    with pytest.raises(AttributeError, match="'Outer' object has no attribute 'nowhere'"):
        Seam(base, **{"nowhere.first": PassThrough()})


@pytest.mark.parametrize("path", ["inner.frist", "transformer", "inner.first.weigth"])
def test_a_part_that_does_not_exist_is_refused(base, path):
    """Replaced all the same, it would leave the forward as it is, without a word."""
    with pytest.raises(AttributeError, match=f"Outer has no part '{path}' to replace"):
        Seam(base, **{path: PassThrough()})
