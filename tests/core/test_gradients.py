"""Training reaches every parameter, and stays finite at the edges of what a batch can be."""

from __future__ import annotations

import pytest
import torch

from hero_plugin import HeroConfig, wrap_model
from tests.core import emb
from tests.core.bases import dict_base, inputs, tensors, total_loss, tuple_base
from tests.old_torch import HALF_TYPES

CONFIGS = {
    "default": HeroConfig(),
    "default, pair": HeroConfig(relevance="pair"),
    "paper": HeroConfig.paper(),
    "paper, pair": HeroConfig.paper(relevance="pair"),
    "projections": HeroConfig(projections=True, consistency="bernoulli"),
    "weights of the query, noise": HeroConfig(level_weights="query", perturb="noise"),
}


def toy_step(model, batch):
    outputs = model(*batch)
    return outputs, total_loss(model, outputs, batch.video_mask)


def emb_step(model, batch):
    outputs = model(*batch)
    return outputs, emb.loss(model, outputs, batch.v_mask)


BASES = {
    "tuple": (tuple_base, inputs, toy_step),
    "dict": (dict_base, inputs, toy_step),
    "emb": (emb.emb, emb.batch, emb_step),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", BASES)
def test_every_parameter_learns(name, config):
    build, batch, step = BASES[name]
    model, arguments = wrap_model(build(), config=config).train(), batch()
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02)
    step(model, arguments)[1].backward()
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    assert not [key for key, value in trained.items() if value.grad is None]
    optimizer.step()
    # What starts at zero shuts off what lies behind it, for one step at most in each encoder layer.
    for _ in range(3):
        optimizer.zero_grad()
        step(model, arguments)[1].backward()
        optimizer.step()
    assert not [key for key, value in trained.items() if not value.grad.any() and not under_softmax(key)]
    assert not [key for key, value in trained.items() if torch.equal(before[key], value) and not under_softmax(key)]


def under_softmax(key):
    """A bias that a softmax cancels has no gradient but rounding's."""
    blocks = (f"predictor.{end}_block.2.conv1d.bias" for end in ("start", "end"))
    return key.endswith(("attention.key.conv1d.bias", *blocks))


EDGES = {
    "a query of padding alone": ((7, 4), (3, 0)),
    "nothing but padding": ((3,), (0,)),
    "one word": ((7, 4), (1, 1)),
    "one clip": ((1, 1), (4, 2)),
    "a batch of one": ((5,), (4,)),
    "one of each": ((1,), (1,)),
    "a video of padding alone": ((4, 0), (3, 2)),
}


@pytest.mark.parametrize("config", ["default", "paper, pair"])
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", BASES)
def test_edges_are_finite(name, edge, config):
    build, batch, step = BASES[name]
    if name == "emb" and edge == "a video of padding alone":
        pytest.skip("EMB itself takes no video without clips: its LSTM refuses a length of zero")
    model, arguments = wrap_model(build(), config=CONFIGS[config]), batch(*EDGES[edge])
    for _ in range(2):
        outputs, loss = step(model.train(), arguments)
        assert loss.isfinite()
        loss.backward()
    finite(outputs, model)
    with torch.no_grad():
        finite(model.eval()(*arguments), model)


def finite(outputs, model):
    assert all(tensor.isfinite().all() for tensor in [*tensors(outputs), model.relevance])
    assert not [key for key, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("config", ["default", "paper"])
@pytest.mark.parametrize("name", BASES)
def test_autocast_is_finite(name, config, dtype):
    build, batch, step = BASES[name]
    model, arguments = wrap_model(build(), config=CONFIGS[config]), batch()
    with torch.autocast("cpu", dtype):
        outputs, loss = step(model.train(), arguments)
    loss.backward()
    assert loss.isfinite()
    finite(outputs, model)
    with torch.autocast("cpu", dtype), torch.no_grad():
        finite(model.eval()(*arguments), model)


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("name", BASES)
def test_autocast_gives_the_types_the_base_gives(name, dtype):
    build, batch, _ = BASES[name]
    base, arguments = build().eval(), batch()
    with torch.autocast("cpu", dtype), torch.no_grad():
        expected = [tensor.dtype for tensor in tensors(base(*arguments))]
        assert [tensor.dtype for tensor in tensors(wrap_model(base)(*arguments))] == expected


@pytest.mark.parametrize("name", BASES)
def test_same_seed_same_bits(name):
    build, batch, step = BASES[name]
    model, arguments = wrap_model(build()).train(), batch()
    results = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        model.zero_grad()
        outputs, loss = step(model, arguments)
        loss.backward()
        results.append([*tensors(outputs), loss, *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
    assert all(torch.equal(one, other) for one, other in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][-1], results[2][-1]) or not torch.equal(
        results[0][len(tensors(outputs))], results[2][len(tensors(outputs))]
    )
