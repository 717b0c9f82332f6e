"""Promise 3: the base is used, not copied or changed, and comes back as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hero_plugin import unwrap_model, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, tensors, tuple_base

CASES = {
    "tuple": (tuple_base, inputs),
    "dict": (dict_base, inputs),
    "emb": (emb.emb, emb.batch),
    "qd_detr": (detr.qd_detr, detr.batch),
}


def portrait(base):
    """Everything about a base that a wrapper might leave a trace on, by identity."""
    return {
        "modules": [(name, id(module), type(module)) for name, module in base.named_modules()],
        "attributes": [sorted(vars(module)) for module in base.modules()],
        "values": {name: id(value) for name, value in vars(base).items()},
        "tensors": {name: (id(value), value.requires_grad) for name, value in base.named_parameters()},
        "state": list(base.state_dict()),
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in base.modules()],
        "forward": base.forward.__func__,
        "modes": [module.training for module in base.modules()],
    }


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_left_on_the_base(name, train):
    build, make = CASES[name]
    base, batch = build().train(train), make()
    before, expected = portrait(base), tensors(base(*batch))
    model = wrap_model(base)
    assert portrait(base) == before
    sum(out.float().clamp(-9, 9).sum() for out in tensors(model(*batch)) if out.requires_grad).backward()
    assert unwrap_model(model) is base and model.base is base
    assert portrait(base) == before
    base.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(expected, tensors(base(*batch)), strict=True))


def test_the_base_shares_its_weights():
    base = emb.emb()
    model, batch = wrap_model(base).eval(), emb.batch()
    before = model(*batch)[1]
    with torch.no_grad():
        base.highlight_layer.conv1d.conv1d.bias.add_(1.0)
        base.video_affine.linear.conv1d.weight.mul_(2.0)
    assert not torch.equal(before, model(*batch)[1])
    assert {id(p) for p in base.parameters()} <= {id(p) for p in model.parameters()}


def test_parts_replaced_on_the_base_are_used():
    base = emb.emb()
    model, batch = wrap_model(base).eval(), emb.batch()
    before = model(*batch)[1]
    base.predictor = emb.emb().predictor.eval()
    assert not torch.equal(before, model(*batch)[1])


def test_every_parameter_is_counted_once():
    for build in (tuple_base, emb.emb):
        model = wrap_model(build())
        names = list(model.state_dict())
        assert len(names) == len(set(names))
        assert len({id(module) for module in model.modules()}) == len(list(model.modules()))


def test_unwraps_through_what_is_put_around_it():
    base = tuple_base()
    model = wrap_model(base)
    assert unwrap_model(nn.DataParallel(model)) is base
    assert unwrap_model(torch.compile(model, backend="eager")) is base
    with pytest.raises(TypeError, match="TwoStage has no HERO around it: it was not made by wrap_model"):
        unwrap_model(base)


def test_a_base_can_be_wrapped_again_after_unwrapping():
    base = dict_base()
    for levels in (2, 4):
        model = wrap_model(unwrap_model(wrap_model(base)), levels=levels)
        assert model.base is base and len(model.level_weights()) == levels
