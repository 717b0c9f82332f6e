"""Promise 2: with HERO off the wrapped model is the base, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch

from hero_plugin import HeroConfig, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, task_loss, tensors, tuple_base

CASES = {
    "tuple": (lambda: tuple_base(0.3), inputs, lambda model, outputs, batch: task_loss(outputs)),
    "dict": (lambda: dict_base(0.3), inputs, lambda model, outputs, batch: task_loss(outputs)),
    "emb": (
        lambda: emb.emb(drop_rate=0.3),
        emb.batch,
        lambda model, outputs, batch: emb.loss(model, outputs, batch.v_mask),
    ),
    "qd_detr": (
        lambda: detr.qd_detr(dropout=0.3),
        detr.batch,
        lambda model, outputs, batch: task_loss(outputs),
    ),
}


def run(model, batch, loss, train):
    torch.manual_seed(3)
    model.train(train).zero_grad()
    outputs = model(*batch)
    total = loss(model, outputs, batch)
    total.backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*tensors(outputs), total, *grads], torch.get_rng_state()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_off_is_bit_identical(name, train):
    build, make, loss = CASES[name]
    base, batch = build(), make()
    model = wrap_model(copy.deepcopy(base), config=HeroConfig.off())
    before, state = run(base, batch, loss, train)
    after, other_state = run(model, batch, loss, train)
    assert len(before) == len(after)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert torch.equal(state, other_state)


def test_off_adds_no_parameters():
    assert not list(wrap_model(emb.emb(), config=HeroConfig.off()).hero.parameters())
    assert not HeroConfig.off().active
    assert wrap_model(emb.emb(), levels=1, sgvf=False, cmtr=False).config == HeroConfig.off()
