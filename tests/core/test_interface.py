"""Promise 1: the same forward and the same outputs; whatever else is asked of it, the base answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from functools import partialmethod

import pytest
import torch

from hero_plugin import HeroConfig, TwoStage, wrap_model
from tests.core import detr, emb
from tests.core.bases import (
    DIM,
    QUERY_DIM,
    VIDEO_DIM,
    DictPredictor,
    ToyFuser,
    TuplePredictor,
    dict_base,
    inputs,
    shake,
    tensors,
    tuple_base,
    two_stage,
)

CASES = {"tuple": (tuple_base, inputs), "dict": (dict_base, inputs), "emb": (emb.emb, emb.batch)}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("config", [HeroConfig(), HeroConfig.paper(relevance="pair"), HeroConfig.off()])
@pytest.mark.parametrize("name", CASES)
def test_same_type_keys_shapes_and_dtypes(name, config, train):
    build, batch = CASES[name]
    base, arguments = build().train(train), batch()
    expected = base(*arguments)
    outputs = wrap_model(base, config=config)(*arguments)
    assert type(outputs) is type(expected)
    for one, other in zip(tensors(expected), tensors(outputs), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
    if isinstance(expected, dict):
        assert set(outputs) - set(expected) == ({"hero"} if train and config.active else set())
        assert set(expected) <= set(outputs)
        assert [list(aux) for aux in outputs["aux_outputs"]] == [list(aux) for aux in expected["aux_outputs"]]
        assert outputs["name"] == "toy" and outputs["nothing"] is None


def test_what_does_not_depend_on_the_query_is_not_averaged():
    arguments = inputs()
    assert torch.equal(wrap_model(tuple_base())(*arguments)[3], arguments.video_mask)
    batch = emb.batch()
    base = emb.emb().eval()
    for place in (3, 5):
        assert torch.equal(wrap_model(base)(*batch)[place], base(*batch)[place])


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_takes_arguments_by_name(name):
    build, batch = CASES[name]
    model, arguments = wrap_model(build()).eval(), batch()
    for one, other in zip(tensors(model(*arguments)), tensors(model(**arguments._asdict())), strict=True):
        assert torch.equal(one, other)


def test_attributes_come_from_the_base():
    base = emb.emb()
    base.note = "mine"
    model = wrap_model(base)
    assert model.predictor is base.predictor and model.note == "mine"
    assert model.predictor.extract_index == base.predictor.extract_index
    assert model.compute_highlight_loss.__wrapped__ == base.compute_highlight_loss
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        model.nonsense  # noqa: B018
    assert not hasattr(model, "nonsense")


class OrderedPredictor(DictPredictor):
    def forward(self, fused, video_mask):
        return OrderedDict(super().forward(fused, video_mask))


def test_other_mappings_keep_their_type():
    predictor = OrderedPredictor(DIM)
    base = two_stage(predictor, predictor.saliency, 0.0, {"pred_spans": "probability"})
    outputs = wrap_model(base).eval()(*inputs())
    assert type(outputs) is OrderedDict
    assert list(outputs) == list(base(*inputs()))


class PairPredictor(DictPredictor):
    """Returns its dict in a tuple, with a parameter of its own, as TaskWeave does."""

    def __init__(self, dim):
        super().__init__(dim)
        self.variance = torch.nn.Parameter(torch.zeros(1))

    def forward(self, fused, video_mask):
        return super().forward(fused, video_mask), [self.variance]


def test_a_dict_in_a_tuple_and_a_parameter():
    predictor = PairPredictor(DIM)
    base = two_stage(predictor, predictor.saliency, 0.0, {"pred_spans": "probability", "1": "whole"})
    for config in (HeroConfig(), HeroConfig(levels=1)):
        model = wrap_model(base.train(), config=config)
        outputs, (variance,) = model(*inputs())
        assert variance is predictor.variance
        assert outputs["hero"]["relevance"] is model.relevance and outputs["saliency_scores"].shape == (3, 7)
    assert "hero" not in model.eval()(*inputs())[0]


def test_train_and_eval_reach_the_base_and_the_plugin():
    model = wrap_model(dict_base())
    for mode in (False, True):
        model.train(mode)
        assert all(part.training is mode for part in model.modules())
    base = dict_base().train()
    base.fuser.eval()
    model = wrap_model(base)
    assert model.training and not base.fuser.training


def test_relevance_is_there_after_a_forward_only_with_hero():
    model = wrap_model(tuple_base()).eval()
    assert model.relevance is None
    model(*inputs())
    assert model.relevance.shape == (3, 7)
    off = wrap_model(tuple_base(), config=HeroConfig.off())
    off(*inputs())
    assert off.relevance is None and off.compute_hero_losses(torch.zeros(3, 7)) == {}
    assert off.weighted_hero_loss(torch.zeros(3, 7)) == 0.0 and off.level_weights().tolist() == [1.0]


def test_losses_need_a_forward_and_are_kept_for_logs():
    model = wrap_model(tuple_base()).train()
    with pytest.raises(RuntimeError, match="call the model before its losses"):
        model.compute_hero_losses(torch.zeros(3, 7))
    model(*inputs())
    losses = model.compute_hero_losses(torch.zeros(3, 7))
    assert set(losses) == {"loss_relevance", "loss_consistency"}
    for name, logged in model.hero_losses().items():
        assert not logged.requires_grad and torch.equal(logged, losses[name].detach())
    total = model.weighted_hero_loss(torch.zeros(3, 7))
    torch.testing.assert_close(total, 0.1 * losses["loss_relevance"] + 0.1 * losses["loss_consistency"])


def test_what_a_training_loop_sets_on_its_model_is_the_bases():
    model = wrap_model(detr.moment_detr())
    model.aux_loss = not model.aux_loss
    assert model.base.aux_loss is model.aux_loss and "aux_loss" not in vars(model)
    model.class_embed = torch.nn.Linear(16, 2)
    assert model.base.class_embed is model.class_embed and "class_embed" not in dict(model.named_children())
    model.note = "mine"  # the base has no such thing
    assert model.note == "mine" and not hasattr(model.base, "note")
    assert model.eval().training is False and model.base.training is False


class Predicting(TwoStage):
    """A base whose own method calls itself, as Lightning's ``training_step`` does."""

    def predict(self, *arguments, scale=1.0):
        return self(*arguments), scale

    def each(self, batches):
        for batch in batches:
            yield self(*batch)

    def lazily(self, batches):
        return (self(*batch) for batch in batches)

    fast = partialmethod(predict, scale=2.0)

    def warm(self):
        return self

    def breaks(self):
        raise ValueError("on purpose")


def predicting():
    fuser, video, query = ToyFuser(DIM), torch.nn.Linear(VIDEO_DIM, DIM), torch.nn.Linear(QUERY_DIM, DIM)
    return Predicting(fuser, TuplePredictor(DIM), DIM, video, query, relevance=torch.nn.Flatten(1))


@pytest.mark.parametrize("training", [False, True])
def test_a_method_of_the_base_that_calls_itself_runs_hero(training):
    base = predicting()
    model = shake(wrap_model(base, relevance="pair")).train(training)
    batch = inputs()
    plain = tensors(base(*batch))
    torch.manual_seed(1)
    outputs, scale = model.predict(*batch, scale=2.0)
    torch.manual_seed(1)
    expected = tensors(model(*batch))
    assert scale == 2.0 and all(torch.equal(one, other) for one, other in zip(tensors(outputs), expected, strict=True))
    assert any(not torch.equal(one, other) for one, other in zip(plain, expected, strict=True))
    with pytest.raises(ValueError, match="on purpose"):
        model.breaks()
    assert "forward" not in vars(base)
    assert all(torch.equal(one, other) for one, other in zip(plain, tensors(base(*batch)), strict=True))
    assert model.predict.__name__ == "predict" and wrap_model(base, config=HeroConfig.off()).predict == base.predict


@torch.no_grad()
def test_what_a_method_leaves_to_an_iterator_or_binds_beforehand_runs_hero():
    base, batch = predicting(), inputs()
    model = shake(wrap_model(base, relevance="pair")).eval()
    expected, plain = model(*batch)[0], base(*batch)[0]
    assert not torch.equal(expected, plain)
    assert torch.equal(model.fast(*batch)[0][0], expected) and model.fast(*batch)[1] == 2.0
    for name in ("each", "lazily"):
        steps = getattr(model, name)([batch, batch, batch])
        assert isinstance(steps, Iterator) and torch.equal(next(steps)[0], expected)
        assert torch.equal(base(*batch)[0], plain)  # between two steps, too
        with model.disable_hero():
            assert torch.equal(next(steps)[0], plain)
        assert [torch.equal(each[0], expected) for each in steps] == [True]
        getattr(model, name)([batch]).close()
    assert "forward" not in vars(base)


@torch.no_grad()
def test_a_method_that_returns_its_model_returns_the_wrapped_one():
    model = wrap_model(predicting())
    assert model.warm() is model


def test_a_kept_method_follows_disable_hero():
    base, batch = predicting(), inputs()
    model = shake(wrap_model(base, relevance="pair")).eval()
    expected, plain, kept = model(*batch)[0], base(*batch)[0], model.predict
    with model.disable_hero():
        assert torch.equal(kept(*batch)[0][0], plain)
        kept = model.predict
    assert torch.equal(kept(*batch)[0][0], expected)


def test_a_bases_own_config_stays_its_own():
    base = dict_base()
    base.config = {"hidden_size": 16}  # as of a Hugging Face model
    model = wrap_model(base)
    assert model.config == HeroConfig()
    assert model.base.config == {"hidden_size": 16}
    base.describe = lambda: base.config["hidden_size"]
    assert model.describe() == 16


def test_losses_after_a_run_without_gradients_are_refused():
    """They would be those of that run, which nothing learns from: soft targets, or a metric within the step."""
    model, batch, inside = wrap_model(tuple_base()).train(), inputs(), torch.zeros(3, 7)
    model(*batch)
    with torch.no_grad():
        model.eval()(*batch)
        model.compute_hero_losses(inside)  # a score of that run alone
    model.train()(*batch)
    with torch.no_grad():
        model(*batch)
    with pytest.raises(RuntimeError, match="compute them before it, or run it on a copy"):
        model.weighted_hero_loss(inside)


def test_losses_stay_for_logs_when_the_backward_runs_the_model_again():
    model, batch = wrap_model(tuple_base()).train(), inputs()
    for tensor in batch[:2]:
        tensor.requires_grad_()
    outputs = torch.utils.checkpoint.checkpoint(model, *batch, use_reentrant=False)
    loss = model.weighted_hero_loss(torch.zeros(3, 7)) + sum(each.sum() for each in outputs)
    logged = model.hero_losses()
    loss.backward()
    assert logged and model.hero_losses() == logged


def test_a_config_changes_what_the_modules_do_not_copy_and_nothing_else():
    model = wrap_model(tuple_base())
    model.config = replace(model.config, relevance_weight=0.5, inference=(1,), checkpoint=True)
    for changes in ({"mask_ratio": 0.9}, {"dropout": 0.0}, {"sgvf": False}):
        with pytest.raises(ValueError, match=f"{next(iter(changes))}: the plug-in was made by these choices"):
            model.config = replace(model.config, **changes)
    assert model.config.mask_ratio == 0.3
