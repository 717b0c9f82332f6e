"""Samples do not see each other: permuting the batch permutes the outputs."""

from __future__ import annotations

import pytest
import torch

from hero_plugin import HeroConfig, wrap_model
from tests.core import emb
from tests.core.bases import dict_base, inputs, shake, tensors, tuple_base

CASES = {"tuple": (tuple_base, inputs), "dict": (dict_base, inputs), "emb": (emb.emb, emb.batch)}


@pytest.mark.parametrize("config", [HeroConfig(), HeroConfig.paper()])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_permuting_the_batch_permutes_the_outputs(name, config):
    build, batch = CASES[name]
    model, arguments = shake(wrap_model(build(), config=config), 0.1).eval(), batch()
    order = torch.tensor([2, 0, 1])
    straight = [*tensors(model(*arguments)), model.relevance]
    permuted = [*tensors(model(*(argument[order] for argument in arguments))), model.relevance]
    for one, other in zip(straight, permuted, strict=True):
        torch.testing.assert_close(one[order], other, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_one_alone_equals_one_among_others():
    model, arguments = shake(wrap_model(tuple_base())).eval(), inputs()
    together = tensors(model(*arguments))
    for row in range(3):
        alone = tensors(model(*(argument[row : row + 1] for argument in arguments)))
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[row : row + 1], other, rtol=1e-5, atol=1e-5)
