"""Promise 6: recomputed activations change nothing; a model in mid-training can be copied and pickled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from hero_plugin import HeroConfig, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, shake, tensors, total_loss, tuple_base


def toy_loss(model, outputs, batch):
    return total_loss(model, outputs, batch.video_mask)


def detr_loss(model, outputs, batch):
    return total_loss(model, outputs, batch.src_vid_mask)


def emb_loss(model, outputs, batch):
    return emb.loss(model, outputs, batch.v_mask)


CASES = {
    "tuple": (tuple_base, inputs, toy_loss),
    "dict": (dict_base, inputs, toy_loss),
    "emb": (emb.emb, emb.batch, emb_loss),
    "qd_detr": (detr.qd_detr, detr.batch, detr_loss),
    "tr_detr": (detr.tr_detr, detr.batch, detr_loss),
}


def step(model, batch, loss):
    torch.manual_seed(7)
    model.train().zero_grad()
    outputs = model(*batch)
    total = loss(model, outputs, batch)
    total.backward()
    return [total, *(parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad)]


@pytest.mark.parametrize("change", [{}, {"relevance": "pair"}])
@pytest.mark.parametrize("name", CASES)
def test_recomputing_gives_the_same_losses_and_gradients(name, change, monkeypatch):
    """With the draws of dropout, too: the backward's are the forward's."""
    build, make, loss = CASES[name]
    base, batch = build(**({"drop_rate": 0.2} if name == "emb" else {"dropout": 0.2})), make()
    model = shake(wrap_model(base, checkpoint=True, **change), 0.1)
    recomputed = step(model, batch, loss)
    monkeypatch.setattr("hero_plugin.model.checkpoint", lambda stage, level, **_: stage(level))
    for one, other in zip(step(model, batch, loss), recomputed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in CASES if name != "qd_detr"])  # whose negatives meet their own level
def test_recomputed_levels_are_those_in_one_batch(name):
    build, make, loss = CASES[name]
    base, batch = build(**({"drop_rate": 0.0} if name == "emb" else {"dropout": 0.0})), make()
    kept = shake(wrap_model(base, dropout=0.0), 0.1)
    recomputed = wrap_model(copy.deepcopy(base), dropout=0.0, checkpoint=True)
    recomputed.load_state_dict(kept.state_dict())
    for one, other in zip(step(kept, batch, loss), step(recomputed, batch, loss), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_copy_after_a_training_step(name, recompute, backward):
    build, make, loss = CASES[name]
    model, batch = shake(wrap_model(build(), checkpoint=recompute), 0.1), make()
    total = loss(model, model.train()(*batch), batch)
    if backward:
        total.backward()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.base is not model.base and twin.relevance is None
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
        for one, other in zip(tensors(model.eval()(*batch)), tensors(twin.eval()(*batch)), strict=True):
            assert torch.equal(one, other)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert not torch.equal(tensors(model(*batch))[1], tensors(twin(*batch))[1])


@pytest.mark.parametrize("name", CASES)
def test_the_copy_trains_itself(name):
    """Nothing in the copy may still lead to the original's weights."""
    build, make, loss = CASES[name]
    model, batch = wrap_model(build(), config=HeroConfig()), make()
    step(model, batch, loss)
    model.zero_grad()
    twin = copy.deepcopy(model)
    step(twin, batch, loss)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.grad is not None for parameter in twin.parameters() if parameter.requires_grad)


def test_a_moving_average_of_the_model():
    model = wrap_model(emb.emb())
    average = torch.optim.swa_utils.AveragedModel(model)
    batch = emb.batch()
    emb_loss(model, model(*batch), batch).backward()
    average.update_parameters(model)
    with torch.no_grad():
        assert all(tensor.isfinite().all() for tensor in tensors(average(*batch)))
