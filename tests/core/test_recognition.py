"""Promise 8: bases are recognised by name and attributes; nothing of theirs is imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points

import pytest
import torch
from torch import nn

from hero_plugin import Adapter, Grounder, Grounding, Pair, adapter, known_adapters, register_adapter, wrap_model
from hero_plugin.adapters.emb import EMB as Reference
from hero_plugin.adapters.emb.adapter import EMBAdapter
from tests.core import emb
from tests.core.bases import dict_base, inputs, tensors, tuple_base


def elsewhere(**namespace):
    """A class of the name EMB that shares no ancestor of that name with the reference."""
    plain = {name: value for name, value in vars(Reference).items() if not name.startswith("__weakref")}
    plain.pop("__classcell__", None)
    return type("EMB", (nn.Module,), {**plain, "__module__": "somebody.elses.code", **namespace})


@torch.no_grad()
def test_a_class_that_is_merely_named_emb():
    base = emb.emb().eval()
    expected = wrap_model(base)(*emb.batch())
    base.__class__ = elsewhere(__init__=nn.Module.__init__)
    assert not isinstance(base, Reference)
    torch.manual_seed(0)
    model = wrap_model(base)
    assert isinstance(model.grounder, EMBAdapter)
    assert [tensor.shape for tensor in tensors(model(*emb.batch()))] == [tensor.shape for tensor in expected]


def test_a_subclass_of_another_name():
    class Renamed(Reference):
        pass

    base = Renamed(emb.config(), emb.vectors())
    assert isinstance(wrap_model(base).grounder, EMBAdapter)


def test_a_subclass_keeps_its_own_forward():
    class Louder(Reference):
        def forward(self, *args, **kwargs):
            h_score, start, *rest = super().forward(*args, **kwargs)
            return h_score, start + 1.0, *rest

    loud = Louder(emb.config(), emb.vectors()).eval()
    plain = Reference(emb.config(), emb.vectors()).eval()
    plain.load_state_dict(loud.state_dict())
    batch = emb.batch()
    real = batch.v_mask.bool()
    change = wrap_model(loud)(*batch)[1] - wrap_model(plain)(*batch)[1]
    torch.testing.assert_close(change[real], torch.ones_like(change[real]))


def test_an_empty_class_of_a_known_name():
    with pytest.raises(TypeError, match="EMB was recognised by EMBAdapter, but it has no attribute 'video_affine'"):
        wrap_model(type("EMB", (nn.Module,), {})())


def test_the_core_imports_no_base():
    code = "import hero_plugin, sys; print([m for m in sys.modules if m.startswith('hero_plugin.adapters')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class Mine(nn.Module):
    """A base with an adapter of its own."""

    def __init__(self):
        super().__init__()
        self.inner = tuple_base()

    def forward(self, *arguments):
        return self.inner(*arguments)


class MineAdapter(Adapter):
    class_names = ("Mine",)
    requires = ("inner.fuser",)
    kinds = {"0": "probability", "3": "shared"}  # noqa: RUF012
    dim = 16

    def embed(self, *arguments) -> Pair:
        return self.base.inner.embed(*arguments)

    def ground(self, pair: Pair) -> Grounding:
        return self.base.inner.ground(pair)

    def relate(self, pair: Pair) -> torch.Tensor:
        return self.base.inner.relate(pair)


def test_earlier_names_of_what_an_adapter_says_count():
    earlier = type("Earlier", (MineAdapter,), {"marks": ("inner.",), "width": "inner.weight"})
    assert (earlier.weight_prefixes, earlier.width_parameter) == (("inner.",), "inner.weight")


def test_a_package_that_is_broken_stops_no_other_base(monkeypatch):
    broken = EntryPoint("zz", "no_such_package.adapter:Adapter", "hero_plugin.adapters")
    monkeypatch.setattr(adapter, "entry_points", lambda group: [broken, *entry_points(group=group)])
    adapter._installed_adapters.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"the adapter no_such_package.adapter:Adapter cannot be imported"):
            wrap_model(emb.emb())
    finally:
        adapter._installed_adapters.cache_clear()


def test_an_adapter_given_by_hand():
    model = wrap_model(Mine(), adapter=MineAdapter)
    assert isinstance(model.grounder, MineAdapter)
    model(*inputs())
    assert model.weighted_hero_loss(torch.zeros(3, 7)) > 0


def test_a_registered_adapter_is_known(monkeypatch):
    monkeypatch.setattr(adapter, "_registered", [])
    with pytest.raises(TypeError, match="no adapter knows Mine"):
        wrap_model(Mine())
    assert register_adapter(MineAdapter) is MineAdapter
    register_adapter(MineAdapter)
    assert known_adapters().count(MineAdapter) == 1
    assert isinstance(wrap_model(Mine()).grounder, MineAdapter)
    assert EMBAdapter in known_adapters()


def test_an_adapter_that_is_not_finished_says_so():
    unfinished = type("Half", (Adapter,), {})
    with pytest.raises(TypeError, match="Half must define dim"):
        wrap_model(Mine(), adapter=unfinished)


def test_grounders_are_recognised_by_what_they_have():
    assert isinstance(dict_base(), Grounder) and isinstance(MineAdapter(Mine()), Grounder)
    assert isinstance(EMBAdapter(emb.emb()), Grounder)
    assert not isinstance(nn.Linear(2, 2), Grounder)
