"""Weights of the levels that depend on the query, against a loop over samples."""

from __future__ import annotations

import copy

import pytest
import torch

from hero_plugin import HeroConfig, WeightedAggregation, load_plugin, save_plugin, wrap_model
from tests.core.bases import dict_base, inputs, shake, tensors, total_loss, tuple_base
from tests.core.cases import CASES


@pytest.mark.parametrize("normalize", [True, False])
@torch.no_grad()
def test_each_sample_has_the_weights_of_its_query(normalize):
    torch.manual_seed(0)
    aggregate = shake(WeightedAggregation(4, dim=6, normalize=normalize, query_dim=5).double(), scale=1.0)
    query = torch.randn(3, 5, dtype=torch.float64)
    weights = aggregate.weights(query=query)
    first, _, last = aggregate.mlp
    for sample in range(3):
        hidden = torch.relu(
            aggregate.templates @ first.weight.T + first.bias + query[sample] @ aggregate.query.weight.T
        )
        raw = (hidden @ last.weight.T).squeeze(-1) + (0.0 if last.bias is None else last.bias)
        torch.testing.assert_close(weights[:, sample], raw.softmax(0) if normalize else raw)
        alone = aggregate.weights([1, 3], query)[:, sample]
        torch.testing.assert_close(alone, raw[[1, 3]].softmax(0) if normalize else raw[[1, 3]])

    logits, chances = torch.randn(4, 3, 7, dtype=torch.float64), torch.rand(4, 3, 2, 5, dtype=torch.float64)
    logits[:, 1, 4] = -1e30
    outputs = {
        "logits": logits,
        "chance": chances,
        "turn": chances,
        "mask": chances,
        "all": torch.ones(9),
        "mean": torch.ones(1),
    }
    kinds = {"chance": "probability", "turn": "direction", "mask": "shared", "all": "whole"}
    got = aggregate(outputs, kinds, query=query)
    assert torch.equal(got["mask"], chances[0]) and got["all"].shape == (9,) and got["mean"] == 1
    plain = WeightedAggregation(4, dim=6, normalize=normalize).double()
    for sample in range(3):
        plain.weights = lambda levels=None, query=None, column=sample: weights[:, column]
        expected = plain({name: outputs[name][:, sample] for name in ("logits", "chance", "turn")}, kinds)
        for name, value in expected.items():
            torch.testing.assert_close(got[name][sample], value)


def test_what_cannot_be_weighed_is_refused():
    aggregate = WeightedAggregation(4, dim=6, query_dim=5)
    with pytest.raises(ValueError, match="the weights depend on the query: give it"):
        aggregate(torch.randn(4, 3, 7))
    with pytest.raises(ValueError, match=r"output tensor must have 4 levels and the batch of 3 first, got \(4, 6, 7\)"):
        aggregate(torch.randn(4, 6, 7), query=torch.randn(3, 5))
    with pytest.raises(ValueError, match="level_weights must be one of 'learned', 'query', got 'each'"):
        HeroConfig(level_weights="each")


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_fresh_wrapper_has_the_weights_that_it_had(name):
    build, make = CASES[name]
    base, batch = build().eval(), make()
    torch.manual_seed(1)
    learned = shake(wrap_model(copy.deepcopy(base)), 0.1)
    query = wrap_model(base, level_weights="query")
    query.load_state_dict(learned.state_dict() | {"hero.aggregation.query.weight": query.hero.aggregation.query.weight})
    for one, other in zip(tensors(learned(*batch)), tensors(query(*batch)), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(learned.level_weights(), query.level_weights())


def weighing(build, **choices):
    """A wrapped model whose levels differ, and whose weights differ from query to query."""
    torch.manual_seed(2)
    model = shake(wrap_model(build(), level_weights="query", dropout=0.0, **choices), 0.05)
    torch.nn.init.normal_(model.hero.aggregation.query.weight)
    return model


@pytest.mark.parametrize("name", [name for name in CASES if name != "qd_detr"])  # its negatives are of neighbours
@torch.no_grad()
def test_an_answer_does_not_move_with_its_neighbours(name):
    build, make = CASES[name]
    model, batch = weighing(build).eval(), make()
    outputs = tensors(model(*batch))
    shares = model.hero.aggregation.weights(None, model.last_forward.query)
    assert shares.shape == (4, len(batch[0])) and shares.std(1).min() > 1e-3
    torch.testing.assert_close(model.level_weights(), shares.mean(1))
    half = [each[:1] if isinstance(each, torch.Tensor) else each for each in batch]
    for one, other in zip(outputs, tensors(model(*half)), strict=True):
        torch.testing.assert_close(one[:1], other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [tuple_base, dict_base])
def test_levels_one_by_one_weigh_as_in_one_batch(build):
    batch, results = inputs(), []
    for checkpoint in (False, True):
        model = weighing(build, checkpoint=checkpoint).train()
        torch.manual_seed(3)
        outputs = model(*batch)
        total_loss(model, outputs, batch.video_mask).backward()
        results.append([*tensors(outputs), model.relevance, model.hero.aggregation.query.weight.grad])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_one_level_and_some_levels_answer():
    model, batch = weighing(dict_base).eval(), inputs()
    with torch.no_grad():
        alone = {level: model.keep_level(level)(*batch)["saliency_scores"] for level in (1, 3)}
        both = model.keep_level(1, 3)(*batch)["saliency_scores"]
        weights = model.hero.aggregation.weights([1, 3], model.last_forward.query)
    torch.testing.assert_close(both, weights[0, :, None] * alone[1] + weights[1, :, None] * alone[3])
    assert model.level_weights()[[0, 2]].tolist() == [0, 0]


def test_it_learns_and_its_checkpoints_say_so(tmp_path):
    model, batch = wrap_model(tuple_base(), level_weights="query").train(), inputs()
    shake(model.hero.hem, 0.3)
    total_loss(model, model(*batch), batch.video_mask).backward()
    assert model.hero.aggregation.query.weight.grad.any()
    assert "hero.aggregation.query.weight" not in wrap_model(tuple_base()).state_dict()

    save_plugin(model, tmp_path / "plugin.pt")
    loaded = load_plugin(tuple_base(), tmp_path / "plugin.pt")
    assert loaded.config.level_weights == "query"
    with pytest.raises(RuntimeError, match="level_weights='query'"):
        wrap_model(tuple_base()).load_state_dict(model.state_dict())


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_list_of_one_item_per_sample_is_refused(checkpoint, rows):
    """Three samples: with three rows each, one level's list could also be of the whole batch, one item per layer."""
    base = dict_base()
    forward = base.predictor.forward
    base.predictor.forward = lambda fused, mask: {**forward(fused, mask), "found": [row[:rows] for row in fused]}
    wrap_model(base, checkpoint=checkpoint)(*inputs())
    with pytest.raises(ValueError, match=r"output found is a list of one item per sample.*level_weights='query'"):
        wrap_model(base, level_weights="query", checkpoint=checkpoint)(*inputs())


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_list_of_one_item_per_layer_is_weighed(checkpoint, layers):
    """Also where there are as many layers as samples: the base names its kind."""
    base = dict_base()
    base.kinds["logits"] = "logits"
    forward = base.predictor.forward
    base.predictor.forward = lambda fused, mask: {
        **forward(fused, mask),
        "logits": fused[..., 0],
        "aux": [{"logits": fused[..., 0]} for _ in range(layers)],
    }
    outputs = wrap_model(base, level_weights="query", checkpoint=checkpoint)(*inputs())
    assert len(outputs["aux"]) == layers
    assert all(torch.equal(each["logits"], outputs["logits"]) for each in outputs["aux"])


def test_a_base_with_outputs_of_some_samples_is_refused_at_once():
    base = dict_base()
    base.part_of_batch = ("pred_logits",)
    with pytest.raises(ValueError, match="pred_logits of this base has rows for some samples only"):
        wrap_model(base, level_weights="query")
    model = wrap_model(base)
    with pytest.raises(ValueError, match="use level_weights='learned'"):
        model.add_plugin("other", level_weights="query")
