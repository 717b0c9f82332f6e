"""wrap_criterion: HERO's losses where a DETR's training loop sums its own."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hero_plugin import HeroConfig, clip_labels, consistency_loss, hero_losses, wrap_criterion, wrap_model
from tests.core.bases import dict_base, inputs, shake, tensors

TARGETS = {
    "span_labels": [
        {"spans": torch.tensor([[0.25, 0.5]])},
        {"spans": torch.tensor([[0.1, 0.2], [0.8, 0.3]])},
        {"spans": torch.tensor([[0.5, 0.2]])},
    ]
}


class SetCriterion(nn.Module):
    """As in the DETRs of this field: a dict of losses, and the weights that the training loop sums them with."""

    def __init__(self, weight_dict):
        super().__init__()
        self.weight_dict = weight_dict
        self.losses = ["spans", "labels"]
        self.register_buffer("empty_weight", torch.tensor([1.0, 0.1]))

    def forward(self, outputs, targets):
        spans = torch.stack([target["spans"][0] for target in targets["span_labels"]])
        losses = {
            "loss_span": F.l1_loss(outputs["pred_spans"], spans.unsqueeze(1).expand_as(outputs["pred_spans"])),
            "loss_label": outputs["pred_logits"].logsumexp(-1).mean(),
            "loss_saliency": outputs["saliency_scores"].square().mean(),
        }
        for place, aux in enumerate(outputs["aux_outputs"]):
            losses[f"loss_span_{place}"] = F.l1_loss(aux["pred_spans"], torch.zeros_like(aux["pred_spans"]))
            losses[f"loss_label_{place}"] = aux["pred_logits"].logsumexp(-1).mean()
        return {**losses, "class_error": torch.tensor(50.0)}


def criterion():
    return SetCriterion(
        {"loss_span": 10.0, "loss_label": 4.0, "loss_saliency": 1.0, "loss_span_0": 10.0, "loss_label_1": 4.0}
    )


def upstream_sum(loss_dict, weight_dict):
    return sum(loss_dict[k] * weight_dict[k] for k in loss_dict if k in weight_dict)


def test_adds_two_losses_and_their_weights():
    base = criterion()
    wrapped = wrap_criterion(base)
    model, batch = shake(wrap_model(dict_base())).train(), inputs()
    outputs = model(*batch)
    losses, plain = wrapped(outputs, TARGETS), base(outputs, TARGETS)
    assert set(losses) - set(plain) == {"loss_relevance", "loss_consistency"}
    assert all(torch.equal(losses[key], plain[key]) for key in plain)
    assert wrapped.weight_dict is base.weight_dict
    assert wrapped.weight_dict["loss_relevance"] == wrapped.weight_dict["loss_consistency"] == 0.1
    labels = clip_labels([target["spans"] for target in TARGETS["span_labels"]], batch.video_mask)
    left = outputs["hero"]
    expected = hero_losses(left["relevance"], left["masked_relevance"], labels, batch.video_mask)
    assert all(torch.equal(losses[key], expected[key]) for key in expected)
    by_model = model.compute_hero_losses(labels)
    assert all(torch.equal(losses[key], by_model[key]) for key in by_model)
    both = 0.1 * expected["loss_relevance"] + 0.1 * expected["loss_consistency"]
    difference = upstream_sum(losses, wrapped.weight_dict) - upstream_sum(plain, wrapped.weight_dict)
    torch.testing.assert_close(difference, both, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_a_criterion_that_was_not_given_the_config_takes_the_models(half):
    config = HeroConfig(relevance_weight=1.0, consistency_weight=0.3, consistency="bernoulli")
    model, batch, wrapped = wrap_model(dict_base(), config=config).train(), inputs(), wrap_criterion(criterion())
    model = shake(model)
    if half:
        model.half().float()  # whoever changes the precision does not change the weights
    losses = wrapped(model(*batch), TARGETS)
    assert (wrapped.weight_dict["loss_relevance"], wrapped.weight_dict["loss_consistency"]) == (1.0, 0.3)
    given = wrap_criterion(criterion(), config)
    labels = clip_labels([target["spans"] for target in TARGETS["span_labels"]], batch.video_mask)
    expected = model.compute_hero_losses(labels)
    assert wrapped.config.consistency == "bernoulli" == given.config.consistency
    assert torch.equal(losses["loss_consistency"], expected["loss_consistency"])
    assert wrap_criterion(criterion(), HeroConfig()).config.relevance_weight == 0.1  # who gives one, means it


def test_a_criterion_follows_a_config_that_is_replaced():
    model, batch, wrapped = shake(wrap_model(dict_base())).train(), inputs(), wrap_criterion(criterion())
    wrapped(model(*batch), TARGETS)
    before = model(*batch)["hero"]["settings"]
    model.keep_level(1)
    assert model(*batch)["hero"]["settings"] == before  # nothing that the losses need
    model.config = replace(model.config, consistency_weight=5.0, consistency="bernoulli")
    losses = wrapped(model(*batch), TARGETS)
    assert wrapped.weight_dict["loss_consistency"] == 5.0 and wrapped.config.consistency == "bernoulli"
    labels = clip_labels([target["spans"] for target in TARGETS["span_labels"]], batch.video_mask)
    assert torch.equal(losses["loss_consistency"], model.compute_hero_losses(labels)["loss_consistency"])


def test_a_weight_that_somebody_set_stays():
    model, batch, wrapped = shake(wrap_model(dict_base())).train(), inputs(), wrap_criterion(criterion())
    wrapped.weight_dict["loss_relevance"] = 2.0
    for weight in (0.1, 0.7, 0.3):
        model.config = replace(model.config, relevance_weight=weight, consistency_weight=weight)
        wrapped(model(*batch), TARGETS)
        assert (wrapped.weight_dict["loss_relevance"], wrapped.weight_dict["loss_consistency"]) == (2.0, weight)
    del wrapped.weight_dict["loss_consistency"]
    model.config = replace(model.config, consistency_weight=0.2)
    wrapped(model(*batch), TARGETS)
    assert "loss_consistency" not in wrapped.weight_dict


@pytest.mark.parametrize("gradient", ["both", "masked"])
def test_where_the_divergence_pulls_is_the_models_choice(gradient):
    model, batch = wrap_model(dict_base(), cmtr=True, consistency_gradient=gradient).train(), inputs()
    outputs, wrapped = shake(model)(*batch), wrap_criterion(criterion())
    left = outputs["hero"]
    wanted = torch.autograd.grad(
        wrapped(outputs, TARGETS)["loss_consistency"], left["relevance"], allow_unused=True, retain_graph=True
    )
    by_model = model.compute_hero_losses(torch.zeros(3, 7))["loss_consistency"]
    found = torch.autograd.grad(by_model, left["relevance"], allow_unused=True)
    assert (wanted[0] is not None) is (found[0] is not None) is (gradient == "both")
    assert wrapped.config.consistency_gradient == gradient


@pytest.mark.parametrize("config", [HeroConfig(), HeroConfig.paper(relevance="pair", projections=True)])
def test_upstreams_sum_trains_every_hero_parameter(config):
    model, wrapped, batch = shake(wrap_model(dict_base(), config=config)).train(), wrap_criterion(criterion()), inputs()
    upstream_sum(wrapped(model(*batch), TARGETS), wrapped.weight_dict).backward()
    still = {key for key, value in model.hero.named_parameters() if value.grad is None or not value.grad.any()}
    assert still == set()


def test_only_hero_losses_reach_the_mask_vectors():
    model, batch = shake(wrap_model(dict_base())).train(), inputs()
    upstream_sum(criterion()(model(*batch), TARGETS), criterion().weight_dict).backward()
    assert model.hero.cmtr.mask_token.grad is None


@torch.no_grad()
def test_evaluation_leaves_the_losses_as_they_are():
    base = criterion()
    wrapped, outputs = wrap_criterion(base), wrap_model(dict_base()).eval()(*inputs())
    assert "hero" not in outputs
    losses, plain = wrapped(outputs, TARGETS), base(outputs, TARGETS)
    assert losses.keys() == plain.keys() and all(torch.equal(losses[key], plain[key]) for key in plain)


def test_without_hero_the_losses_stay():
    for model in (dict_base(), wrap_model(dict_base(), config=HeroConfig.off())):
        losses = wrap_criterion(criterion())(model.train()(*inputs()), TARGETS)
        assert not {"loss_relevance", "loss_consistency"} & set(losses)


def test_without_masked_words_there_is_no_consistency():
    model = wrap_model(dict_base(), cmtr=False).train()
    losses = wrap_criterion(criterion())(model(*inputs()), TARGETS)
    assert "loss_relevance" in losses and "loss_consistency" not in losses


def test_the_config_sets_weights_and_kind():
    config = HeroConfig(relevance_weight=0.5, consistency_weight=0.25, consistency="bernoulli")
    wrapped = wrap_criterion(criterion(), config)
    assert wrapped.weight_dict["loss_relevance"] == 0.5 and wrapped.weight_dict["loss_consistency"] == 0.25
    model, batch = shake(wrap_model(dict_base(), config=config)).train(), inputs()
    losses = wrapped(model(*batch), TARGETS)
    labels = clip_labels([target["spans"] for target in TARGETS["span_labels"]], batch.video_mask)
    by_model = model.compute_hero_losses(labels)
    assert torch.equal(losses["loss_consistency"], by_model["loss_consistency"])


def test_several_moments_are_a_union():
    model, batch = wrap_model(dict_base(), cmtr=False, sgvf=False, levels=2).train(), inputs(clips=(10,), words=(3,))
    outputs = model(*batch)
    targets = {"span_labels": [{"spans": torch.tensor([[0.1, 0.2], [0.7, 0.2]])}]}
    wanted = torch.tensor([[1, 1, 0, 0, 0, 0, 1, 1, 0, 0.0]])
    expected = F.binary_cross_entropy_with_logits(model.relevance, wanted)
    torch.testing.assert_close(wrap_criterion(criterion())(outputs, targets)["loss_relevance"], expected)


def test_clip_indices_where_the_criterion_classifies_clips():
    base, model = criterion(), wrap_model(dict_base(), cmtr=False, sgvf=False, levels=2).train()
    base.span_loss_type = "ce"
    outputs = model(*inputs(clips=(10,), words=(3,)))
    targets = {"span_labels": [{"spans": torch.tensor([[0, 1], [6, 7]])}]}
    wanted = torch.tensor([[1, 1, 0, 0, 0, 0, 1, 1, 0, 0.0]])
    expected = F.binary_cross_entropy_with_logits(model.relevance, wanted)
    torch.testing.assert_close(wrap_criterion(base)(outputs, targets)["loss_relevance"], expected)


class HighlightCriterion(nn.Module):
    """Highlights alone: whatever spans the targets carry mean nothing."""

    def __init__(self, **attributes):
        super().__init__()
        self.weight_dict = {"loss_saliency": 1.0}
        self.__dict__.update(attributes)

    def forward(self, outputs, targets):
        return {"loss_saliency": outputs["saliency_scores"].square().mean()}


@pytest.mark.parametrize(
    ("attributes", "targets"), [({}, {}), ({"use_matcher": False}, {"span_labels": [{"spans": torch.zeros(1, 2)}] * 3})]
)
def test_highlights_alone_leave_only_consistency(attributes, targets):
    """No moments, no clip labels; taking none for "no clip is relevant" would teach the opposite of the highlights."""
    model = shake(wrap_model(dict_base())).train()
    outputs = model(*inputs())
    said = nullcontext() if attributes else pytest.warns(UserWarning, match="loss_relevance is left out: .* have none")
    with said:
        losses = wrap_criterion(HighlightCriterion(**attributes))(outputs, targets)
    assert set(losses) == {"loss_saliency", "loss_consistency"}
    left = outputs["hero"]
    expected = consistency_loss(left["relevance"], left["masked_relevance"], left["video_mask"])
    assert torch.equal(losses["loss_consistency"], expected)
    model = wrap_model(dict_base(), cmtr=False).train()
    assert set(wrap_criterion(HighlightCriterion(**attributes))(model(*inputs()), targets)) == {"loss_saliency"}


def test_targets_of_another_form_are_told_once():
    model = wrap_model(dict_base(), cmtr=False).train()
    criterion, targets = wrap_criterion(HighlightCriterion()), [{"spans": torch.zeros(1, 2)}] * 3
    with pytest.warns(UserWarning, match="loss_relevance is left out: these targets are a list"):
        criterion(model(*inputs()), targets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion(model(*inputs()), targets)


def test_the_criterion_sees_the_bases_outputs_alone():
    """Some criteria walk over all their outputs."""

    class Walking(HighlightCriterion):
        def forward(self, outputs, targets):
            assert list(outputs) == seen
            return {"loss_saliency": outputs["saliency_scores"].sum()}

    outputs = wrap_model(dict_base()).train()(*inputs())
    seen = [key for key in outputs if key != "hero"]
    losses = wrap_criterion(Walking())(outputs, TARGETS)
    assert "loss_relevance" in losses and "hero" in outputs


@pytest.mark.parametrize("by_name", [False, True])
def test_a_criterion_that_takes_the_batch_and_leaves_its_losses_in_the_outputs(by_name):
    """FlashVTG's: its loop reads them there, and never looks at what is returned."""

    class Leaving(HighlightCriterion):
        def forward(self, batch, outputs, targets):
            assert "hero" not in outputs and batch == ["meta", {"hero": 1}]
            outputs["loss_saliency"] = outputs["saliency_scores"].square().mean()
            return outputs

    outputs, criterion = wrap_model(dict_base()).train()(*inputs()), wrap_criterion(Leaving())
    batch = ["meta", {"hero": 1}]
    hero = outputs["hero"]
    given = {"targets": TARGETS, "batch": batch, "outputs": outputs}
    criterion(**given) if by_name else criterion(batch, outputs, TARGETS)
    assert outputs["hero"] is hero
    labels = clip_labels([target["spans"] for target in TARGETS["span_labels"]], hero["video_mask"])
    expected = hero_losses(hero["relevance"], hero["masked_relevance"], labels, hero["video_mask"])
    assert all(torch.equal(outputs[name], loss) for name, loss in expected.items())
    assert {name for name in outputs if "loss" in name} == {"loss_saliency", *expected}


def test_the_criterion_is_still_itself():
    base = criterion()
    wrapped = wrap_criterion(base)
    assert wrapped.losses is base.losses and wrapped.empty_weight is base.empty_weight
    wrapped.train()
    assert base.training
    wrapped.eval()
    assert not base.training
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        wrapped.nonsense  # noqa: B018
    assert set(base.state_dict()) == {"empty_weight"}


def test_the_outputs_still_hold_what_the_criterion_reads():
    outputs = wrap_model(dict_base()).train()(*inputs())
    assert {"pred_logits", "pred_spans", "saliency_scores", "aux_outputs"} <= set(outputs)
    assert all(tensor.requires_grad for tensor in tensors(outputs["aux_outputs"]))


def test_other_criteria_are_refused_with_advice():
    with pytest.raises(TypeError, match=r"CrossEntropyLoss has no dict .*model\.weighted_hero_loss\(inside\)"):
        wrap_criterion(nn.CrossEntropyLoss())


def test_what_is_no_config_or_wrapped_already_is_refused():
    with pytest.raises(TypeError, match=r"config must be a HeroConfig, as model\.config is, got HeroModel"):
        wrap_criterion(criterion(), wrap_model(dict_base()))
    with pytest.raises(TypeError, match="already has HERO's losses"):
        wrap_criterion(wrap_criterion(criterion()))


def test_targets_may_come_before_the_outputs():
    class Swapped(nn.Module):
        weight_dict: ClassVar[dict[str, float]] = {}

        def forward(self, targets, outputs):
            return {}

    model, batch = wrap_model(dict_base()).train(), inputs()
    targets = {"span_labels": [{"spans": torch.tensor([[0.5, 0.2]])}] * 3}
    assert "loss_relevance" in wrap_criterion(Swapped(), model.config)(targets, model(*batch))
