"""Promise 6: torch.compile follows a wrapped model, and computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hero_plugin import HeroConfig, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, shake, tensors, total_loss, tuple_base
from tests.old_torch import needs_compiler

pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compare(model, compiled, batch, loss):
    """Outputs and gradients of one training step with the same masks."""
    results = []
    for one in (model, compiled):
        torch.manual_seed(1)
        model.zero_grad()
        outputs = one(*batch)
        total = loss(model, outputs)
        total.backward()
        grads = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        results.append([*tensors(outputs), total, *grads])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


SMALL = {"levels": 2, "stride": 1, "dropout": 0.0}
CASES = {
    "tuple": (tuple_base, HeroConfig(**SMALL)),
    "dict": (dict_base, HeroConfig.paper(relevance="pair", **SMALL)),
    "weights of the query, noise": (dict_base, HeroConfig(level_weights="query", perturb="noise", **SMALL)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_toy_in_one_graph(name):
    build, config = CASES[name]
    model, batch = shake(wrap_model(build(), config=config)).train(), inputs()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    compare(model, compiled, batch, lambda one, outputs: total_loss(one, outputs, batch.video_mask))


@pytest.mark.slow
def test_emb_behind_its_seam():
    """HERO, the adapter and EMB's own forward are traced; EMB's layers are left out, tracing them takes a minute."""
    base = emb.emb()
    for part in (*base.encoder.children(), base.fuser1, base.fuser2, base.predictor, base.ranker):
        part.forward = torch.compiler.disable(part.forward)
    model, batch = shake(wrap_model(base, config=HeroConfig(**SMALL)), 0.1).eval(), emb.batch()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        for one, other in zip(tensors(model(*batch)), tensors(compiled(*batch)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_is_set_on_the_model_after_wrapping_counts():
    model, batch = shake(wrap_model(detr.moment_detr(), config=HeroConfig(**SMALL)), 0.1).eval(), detr.batch()
    head = model.class_embed
    model.class_embed = nn.Linear(head.in_features, head.out_features)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        first = compiled(*batch)["pred_logits"]
        torch.testing.assert_close(first, model(*batch)["pred_logits"])
        model.class_embed = head
        again = compiled(*batch)["pred_logits"]
        torch.testing.assert_close(again, model(*batch)["pred_logits"])
    assert not torch.allclose(first, again)


def test_hero_off():
    model, batch = wrap_model(tuple_base(), config=HeroConfig.off()).eval(), inputs()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for one, other in zip(tensors(model(*batch)), tensors(compiled(*batch)), strict=True):
        assert torch.equal(one, other)
