"""The seam: a base's own forward with parts replaced, at any depth, and nothing left on the base."""

from __future__ import annotations

import copy
from functools import partial, update_wrapper
from types import MethodType

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


class Bound(Outer):
    """A base that keeps one of its methods as an attribute, counts its calls, and remembers."""

    def __init__(self):
        super().__init__()
        self.run, self.calls, self.mode, self.last, self.seen = self.first, 0, "cold", None, None

    def forward(self, x):
        self.calls, self.mode, self.note = self.calls + 1, "warm", 0.5
        self.last = self.memory = x
        self.penalty = x.square().mean()
        return self.run(x)

    def first(self, x):
        return super().forward(x)


@pytest.mark.parametrize("copied", [False, True])
def test_bound_methods_that_the_base_keeps_are_those_of_the_view(copied):
    base, x = Bound(), torch.randn(2, 3)
    seam = Seam(base, project=PassThrough())
    seam = copy.deepcopy(seam) if copied else seam
    expected = base(x)
    assert torch.equal(seam(base.project(x)), expected)
    seam.base.forward = MethodType(lambda self, x: 2 * type(self).forward(self, x), seam.base)
    assert torch.equal(seam(base.project(x)), 2 * expected)
    del seam.base.forward  # what was taken off the base is taken off the view
    assert torch.equal(seam(base.project(x)), expected) and base.run.__self__ is base


def test_a_function_in_place_of_the_forward_is_refused(base):
    """It calls the base itself, whose projections would run again."""
    seam, plain = Seam(base, project=PassThrough()), base.forward
    for function in (lambda x: plain(x), update_wrapper(partial(lambda module, x: plain(x), base), plain)):
        base.forward = function
        for call in (lambda: seam(torch.ones(2, 3)), lambda: Seam(base, project=PassThrough())):
            with pytest.raises(TypeError, match=r"forward of this Outer is a function that was set on it.*wrap_model"):
                call()
        assert torch.equal(Seam(base, forward=abs)(-torch.ones(2)), torch.ones(2))
        del base.forward
    seam(torch.ones(2, 3))
    base.inner.forward = function
    with pytest.raises(TypeError, match="forward of this Inner is a function"):
        Seam(base, **{"inner.first": PassThrough()})


def test_what_the_forward_counts_is_counted_on_the_base():
    base, x = Bound(), torch.randn(2, 3)
    seam = Seam(base, project=PassThrough(), training=True, seen=abs)
    for calls in (1, 2, 3):
        seam(x)
        assert (base.calls, base.mode, base.note) == (calls, "warm", 0.5)
    assert base.last is None and not hasattr(base, "memory") and seam.view.memory is x  # tensors stay with the view
    assert torch.equal(base.penalty, x.square().mean())  # but a loss, of all levels, does not
    base.calls, base.training = 10, False
    seam(x)
    assert base.calls == 11 and not base.training and base.seen is None


def test_a_part_that_is_not_there_is_named(base):
    with pytest.raises(AttributeError, match="'Outer' object has no attribute 'nowhere'"):
        Seam(base, **{"nowhere.first": PassThrough()})


@pytest.mark.parametrize("path", ["inner.frist", "transformer", "inner.first.weigth"])
def test_a_part_that_does_not_exist_is_refused(base, path):
    """Replaced all the same, it would leave the forward as it is, without a word."""
    with pytest.raises(AttributeError, match=f"Outer has no part '{path}' to replace"):
        Seam(base, **{path: PassThrough()})
