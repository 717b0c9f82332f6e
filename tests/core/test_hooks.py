"""Hooks on the base are called as without HERO: once a forward, with its arguments and its outputs."""

from __future__ import annotations

import pytest
import torch

from hero_plugin import HeroConfig, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, shake, tensors, total_loss
from tests.core.test_interface import Predicting, ToyFuser, TuplePredictor
from tests.old_torch import needs_compiler

BASES = {"dict": (dict_base, inputs), "emb": (emb.emb, emb.batch), "qd_detr": (detr.qd_detr, detr.batch)}


@pytest.mark.parametrize("config", [HeroConfig(), HeroConfig(checkpoint=True), HeroConfig.off()])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BASES)
def test_hooks_of_the_base_see_arguments_and_outputs(name, training, config):
    build, make = BASES[name]
    model, batch, seen = wrap_model(build(), config=config).train(training), make(), []
    torch.manual_seed(1)
    expected = tensors(model(*batch))
    model.base.register_forward_pre_hook(lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    model.base.register_forward_hook(lambda module, args, outputs: seen.append(outputs))
    torch.manual_seed(1)
    rest = list(batch._fields[1:])
    outputs = model(batch[0], **{field: getattr(batch, field) for field in rest})
    assert len(seen) == 2 and seen[0][0] == (batch[0],) and list(seen[0][1]) == rest and seen[1] is outputs
    assert all(torch.equal(one, other) for one, other in zip(tensors(outputs), expected, strict=True))
    assert "forward" not in vars(model.base)


def test_hooks_of_the_base_change_what_they_change_without_hero():
    model, batch = shake(wrap_model(dict_base())).eval(), inputs()
    longer = batch._replace(video=batch.video * 2)
    expected = model(*longer)["saliency_scores"] + 1
    model.base.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))
    model.base.register_forward_hook(lambda module, args, outputs: {"saliency_scores": outputs["saliency_scores"] + 1})
    outputs = model(*batch)
    assert list(outputs) == ["saliency_scores"] and torch.equal(outputs["saliency_scores"], expected)


def test_hooks_of_the_backward_and_of_methods():
    base = Predicting(ToyFuser(5), TuplePredictor(5), 5, torch.nn.Linear(6, 5))
    model, batch, seen = wrap_model(base, relevance="pair", num_heads=1).train(), inputs(), []
    base.register_full_backward_hook(lambda *_: seen.append("backward"))
    base.register_forward_hook(lambda *_: seen.append("forward"))
    total_loss(model, model(*batch), batch.video_mask).backward()
    assert seen == ["forward", "backward"]
    model.predict(*batch)
    assert seen == ["forward", "backward", "forward"]


def test_hooks_of_parts_see_all_levels_and_while_training_the_masked_words_after_them():
    """What the guide says of them."""
    model, batch, seen = wrap_model(dict_base(), levels=4), inputs(), []
    model.base.fuser.register_forward_hook(lambda module, args, fused: seen.append(len(fused)))
    model.eval()(*batch)
    assert seen == [4 * 3]
    model.train()(*batch)
    assert seen[1:] == [4 * 3, 4 * 3]


@needs_compiler
@pytest.mark.slow
def test_hooks_of_the_base_in_a_compiled_model():
    torch._dynamo.reset()
    model, batch, seen = shake(wrap_model(dict_base(), levels=1)).eval(), inputs(), []
    expected = tensors(model(*batch))
    model.base.register_forward_hook(lambda *_: seen.append("forward"))
    outputs = torch.compile(model, backend="eager")(*batch)
    assert seen == ["forward"] and "forward" not in vars(model.base)
    for one, other in zip(tensors(outputs), expected, strict=True):
        torch.testing.assert_close(one, other)
    torch._dynamo.reset()
