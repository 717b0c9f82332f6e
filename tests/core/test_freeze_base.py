"""A frozen base: the plug-in learns alone, the base stays still and deterministic, and comes back as it was."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from hero_plugin import HeroConfig, unwrap_model, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, labels, task_loss, tensors
from tests.core.test_unwrap import portrait

CASES = {
    "dict": (lambda: dict_base(0.3), inputs, lambda model, outputs, batch: hero_loss(model, outputs, batch.video_mask)),
    "emb": (
        lambda: emb.emb(drop_rate=0.3),
        emb.batch,
        lambda model, outputs, batch: emb.loss(model, outputs, batch.v_mask),
    ),
    "qd_detr": (
        lambda: detr.qd_detr(dropout=0.3),
        detr.batch,
        lambda model, outputs, batch: hero_loss(model, outputs, batch.src_vid_mask),
    ),
}


def hero_loss(model, outputs, mask):
    return task_loss(outputs) + model.weighted_hero_loss(labels(mask))


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_plugin_learns_alone(name, checkpoint):
    build, make, loss = CASES[name]
    model = wrap_model(build(), stride=1, freeze_base=True, checkpoint=checkpoint).train()
    before = copy.deepcopy(model.state_dict())
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in learning} == {id(parameter) for parameter in model.hero.parameters()}
    optimizer = torch.optim.SGD(learning, lr=0.1)
    for _ in range(2):  # the first step leaves branches that start at zero with some gradients of zero
        optimizer.zero_grad()
        batch = make()
        loss(model, model.train()(*batch), batch).backward()
        optimizer.step()
    assert all(parameter.grad is None for parameter in model.base.parameters())
    assert all(parameter.grad is not None for parameter in learning)
    moved = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"hero"}


@pytest.mark.parametrize("name", CASES)
def test_it_is_deterministic_while_the_plugin_trains(name):
    build, make, _ = CASES[name]
    model, batch = wrap_model(build(), dropout=0.0, cmtr=False, freeze_base=True), make()
    assert model.training and model.hero.training
    for _ in range(2):  # at once, and after the call that every training loop makes
        one, other = tensors(model(*batch)), tensors(model(*batch))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        model.train()
    assert not any(module.training for module in model.base.modules() if not isinstance(module, nn.RNNBase))
    assert all(module.training is False for module in model.eval().modules())


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_it_comes_back_as_it_was(name, train):
    build, make, loss = CASES[name]
    base = build().train(train)
    next(base.parameters()).requires_grad_(False)  # the user's own choice
    next(iter(base.children())).eval()
    before = portrait(base)
    model, batch = wrap_model(base, freeze_base=True), make()
    loss(model, model.train()(*batch), batch).backward()
    assert unwrap_model(model.train()) is base
    assert portrait(base) == before
    assert unwrap_model(model.train()) is base and next(iter(base.children())).training


def test_unfrozen_it_is_in_the_mode_of_the_wrapped_model():
    model = wrap_model(emb.emb(drop_rate=0.3), freeze_base=True).eval()
    model.unfreeze_base()
    assert not any(module.training for module in model.modules())
    model.freeze_base()
    assert not any(module.training for module in unwrap_model(model).modules())


def test_recurrent_layers_keep_the_mode_that_cudnn_needs():
    base = emb.emb(drop_rate=0.3)
    model = wrap_model(base, freeze_base=True).train()
    recurrent = [module for module in base.modules() if isinstance(module, nn.RNNBase)]
    assert recurrent and all(module.training for module in recurrent)
    base.several = nn.LSTM(4, 4, num_layers=2, dropout=0.5)
    model.train()
    assert not base.several.training
    model.eval()
    assert not any(module.training for module in recurrent)


def test_copies_and_checkpoints_stay_frozen(tmp_path):
    model = wrap_model(emb.emb(drop_rate=0.3), freeze_base=True)
    twin = copy.deepcopy(model).train()
    twin.load_state_dict(model.state_dict())
    assert not any(parameter.requires_grad for parameter in twin.base.parameters())
    assert not twin.base.fuser1.training and twin.hero.training
    assert any(parameter.requires_grad for parameter in unwrap_model(twin).parameters())
    assert not any(parameter.requires_grad for parameter in model.base.parameters())


def test_freezing_by_hand_and_twice():
    model = wrap_model(emb.emb())
    model.freeze_base()
    model.freeze_base()
    model.unfreeze_base()
    model.unfreeze_base()
    assert any(parameter.requires_grad for parameter in model.base.parameters())


def test_a_base_that_another_wrapper_unfroze_is_frozen_again():
    base = dict_base()
    first, second = wrap_model(base), wrap_model(base)
    first.freeze_base()
    second.freeze_base()
    first.unfreeze_base()
    assert second.train().base.training  # it learns again, and so it is in training mode
    second.freeze_base()
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_a_copy_that_is_frozen_twice_comes_back_as_the_original_was():
    twin = copy.deepcopy(wrap_model(dict_base(), freeze_base=True))
    twin.freeze_base()
    assert not twin.train().base.training
    assert all(parameter.requires_grad for parameter in unwrap_model(twin).parameters())


def test_a_base_that_two_wrappers_froze_comes_back_as_it_was():
    base = dict_base(0.3).train()
    next(base.parameters()).requires_grad_(False)
    before = [p.requires_grad for p in base.parameters()]
    wrap_model(base, freeze_base=True)
    with pytest.warns(UserWarning, match="frozen by another wrapper, and stays so"):
        wrap_model(base)
    assert unwrap_model(wrap_model(base, freeze_base=True).train()) is base
    assert [p.requires_grad for p in base.parameters()] == before and base.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrap_model(base)


def test_with_hero_off_nothing_would_learn():
    base = emb.emb()
    with pytest.raises(ValueError, match="leaves nothing to train"):
        wrap_model(base, config=HeroConfig.off(), freeze_base=True)
    assert any(parameter.requires_grad for parameter in base.parameters())
