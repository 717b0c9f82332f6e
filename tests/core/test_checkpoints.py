"""Promise 4: two prefixes; upstream, whole and plug-in-only checkpoints load; nothing is unpickled."""

from __future__ import annotations

import copy

import pytest
import torch

from hero_plugin import HeroConfig, config_of, hero_state_dict, unwrap_model, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, shake, tensors, tuple_base

CASES = {
    "tuple": (tuple_base, inputs),
    "dict": (dict_base, inputs),
    "emb": (emb.emb, emb.batch),
    "qd_detr": (detr.qd_detr, detr.batch),
}


def through_a_file(state, folder):
    torch.save(state, folder / "model.pt")
    return torch.load(folder / "model.pt", weights_only=True)


@torch.no_grad()
def equal_outputs(one, other, batch):
    pairs = zip(tensors(one.eval()(*batch)), tensors(other.eval()(*batch)), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", CASES)
def test_prefixes(name):
    base = CASES[name][0]()
    model = wrap_model(base)
    state = model.state_dict()
    assert {key.split(".")[0] for key in state} == {"hero", "base"}
    assert [key[5:] for key in state if key.startswith("base.")] == list(base.state_dict())
    assert set(hero_state_dict(model)) == {key for key in state if key.startswith("hero.")}


@pytest.mark.parametrize("config", [HeroConfig(), HeroConfig.paper(relevance="pair", projections=True)])
@pytest.mark.parametrize("name", CASES)
def test_whole_checkpoint_round_trip(name, config, tmp_path):
    build, make = CASES[name]
    model, other, batch = shake(wrap_model(build(), config=config), 0.1), wrap_model(build(), config=config), make()
    assert not equal_outputs(model, other, batch)
    report = other.load_state_dict(through_a_file(model.state_dict(), tmp_path))
    assert not report.missing_keys and not report.unexpected_keys
    assert equal_outputs(model, other, batch)


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_of_the_bare_base_loads(name, tmp_path):
    build, make = CASES[name]
    trained, model = shake(build(), 0.1), wrap_model(build())
    plugin = copy.deepcopy(hero_state_dict(model))
    model.load_state_dict(through_a_file(trained.state_dict(), tmp_path))
    assert equal_outputs(trained, model.base, make())
    assert all(torch.equal(value, plugin[key]) for key, value in hero_state_dict(model).items())


@pytest.mark.parametrize("name", CASES)
def test_a_plugin_goes_on_another_copy_of_the_base(name, tmp_path):
    build, make = CASES[name]
    base = build()
    model = shake(wrap_model(copy.deepcopy(base)), 0.1)
    other = wrap_model(copy.deepcopy(model.base))
    other.load_state_dict(through_a_file(hero_state_dict(model), tmp_path))
    assert equal_outputs(model, other, make())


def test_a_plugin_checkpoint_leaves_the_base_alone():
    model = wrap_model(emb.emb())
    before = copy.deepcopy(model.base.state_dict())
    model.load_state_dict(hero_state_dict(shake(wrap_model(emb.emb()))))
    assert all(torch.equal(before[key], value) for key, value in model.base.state_dict().items())


def test_wrong_checkpoints_are_refused():
    model = wrap_model(emb.emb())
    other = wrap_model(emb.emb(dim=32))
    for state in (other.state_dict(), other.base.state_dict(), hero_state_dict(other)):
        with pytest.raises(RuntimeError, match="size mismatch"):
            model.load_state_dict(state)
    incomplete = model.state_dict()
    incomplete.pop("hero.sgvf.strength")
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: .*sgvf.strength"):
        model.load_state_dict(incomplete)
    assert model.load_state_dict(incomplete, strict=False).missing_keys == ["hero.sgvf.strength"]
    with pytest.raises(RuntimeError, match="Missing key"):
        wrap_model(emb.emb(), projections=True).load_state_dict(dict(hero_state_dict(model)))  # a copy has no note
    bare = model.base.state_dict()
    bare.pop("fuser1.cq_attention.w4C")
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(bare)


def test_off_checkpoints_round_trip(tmp_path):
    model = wrap_model(emb.emb(), config=HeroConfig.off())
    other = wrap_model(emb.emb(), config=HeroConfig.off())
    other.load_state_dict(through_a_file(model.state_dict(), tmp_path))
    assert equal_outputs(model, other, emb.batch())
    assert hero_state_dict(model) == {}
    other.load_state_dict(hero_state_dict(model))


def test_assign_replaces_the_tensors():
    model, state = wrap_model(tuple_base()), wrap_model(tuple_base()).state_dict()
    model.load_state_dict(state, assign=True)
    assert model.hero.sgvf.strength.data_ptr() == state["hero.sgvf.strength"].data_ptr()


def test_loads_as_part_of_a_larger_model():
    def larger():
        return torch.nn.ModuleDict({"grounding": wrap_model(tuple_base()), "other": torch.nn.Linear(2, 2)})

    one, other = larger(), larger()
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("part", ["whole", "plug-in", "inside DataParallel", "a copy"])
def test_weights_say_which_hero_they_belong_to(part, tmp_path):
    config = HeroConfig.paper(levels=2, mask_ratio=0.5)
    model = wrap_model(emb.emb(), config=config)
    state = {
        "whole": model.state_dict,
        "plug-in": model.hero_state_dict,
        "inside DataParallel": torch.nn.DataParallel(model).state_dict,
        "a copy": lambda: copy.deepcopy(model).state_dict(),
    }[part]()
    assert config_of(through_a_file(state, tmp_path)) == config


def test_weights_of_a_bare_base_say_nothing():
    assert config_of(emb.emb().state_dict()) is None


@pytest.mark.parametrize("part", ["state_dict", "hero_state_dict"])
def test_weights_of_another_hero_say_what_to_wrap_with(part):
    other = wrap_model(emb.emb(), config=HeroConfig.paper(levels=2))
    model = wrap_model(emb.emb(), levels=2)
    with pytest.raises(RuntimeError, match=r"wrap_model\(base, norm='post', positions=False"):
        model.load_state_dict(getattr(other, part)())


def test_weights_of_hero_off_say_what_to_wrap_with():
    off = wrap_model(dict_base(), config=HeroConfig.off())
    with pytest.raises(RuntimeError, match=r"wrap_model\(base, config=HeroConfig.off\(\)\)"):
        wrap_model(dict_base()).load_state_dict(off.state_dict())


@pytest.mark.parametrize("choice", [{"num_heads": 4}, {"positions": False}, {"norm": "post", "identity_start": False}])
def test_another_hero_is_refused_within_another_model_too(choice):
    there, here = (torch.nn.ModuleDict({"model": wrap_model(dict_base(), **more)}) for more in ({}, choice))
    with pytest.raises(RuntimeError, match=r"come from another HERO .* wrap_model\(base"):
        here.load_state_dict(there.state_dict())
    here["model"].load_state_dict(there["model"].state_dict(), strict=False)


def test_what_matters_in_training_alone_may_differ():
    other = wrap_model(emb.emb(), mask_ratio=0.5, relevance_weight=1.0, checkpoint=True)
    wrap_model(emb.emb()).load_state_dict(other.state_dict())


def test_weights_of_a_newer_version_are_told_apart():
    state = wrap_model(emb.emb()).state_dict()
    state._metadata[""]["hero"]["later"] = 1
    with pytest.raises(ValueError, match="HeroConfig has no 'later' here; a later version may"):
        config_of(state)


@pytest.mark.parametrize(
    "around",
    [
        torch.optim.swa_utils.AveragedModel,
        lambda model: torch.nn.DataParallel(torch.compile(model)),
        lambda model: torch.compile(torch.nn.DataParallel(model)),
    ],
)
def test_a_checkpoint_of_what_torch_puts_around_the_model_loads(around):
    """Also with an entry that is nobody's weight (``n_averaged``)."""
    model, other = shake(wrap_model(tuple_base())), wrap_model(tuple_base())
    other.load_state_dict(around(model).state_dict())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_unwrapping_an_averaged_model():
    model = wrap_model(tuple_base())
    assert type(unwrap_model(torch.optim.swa_utils.AveragedModel(model))) is type(model.base)


def test_a_bare_base_may_have_a_part_called_base():
    base, other = tuple_base(), tuple_base()
    for each in (base, other):
        each.base = torch.nn.Linear(2, 2)
    model = wrap_model(other)
    model.load_state_dict(base.state_dict())
    assert torch.equal(other.base.weight, base.base.weight)


def test_every_name_of_a_bare_base_may_begin_with_base():
    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base = tuple_base()
            self.dim, self.kinds, self.embed = self.base.dim, self.base.kinds, self.base.embed
            self.ground, self.relate = self.base.ground, self.base.relate

        def forward(self, *batch):
            return self.base(*batch)

    one, other = Around(), Around()
    model = wrap_model(other)
    assert not model.load_state_dict(one.state_dict(), strict=False).missing_keys
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
