"""A training loop that leaves out HERO's losses or its parameters is told so, once; any other hears nothing."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from hero_plugin import wrap_criterion, wrap_model
from tests.core.bases import dict_base, inputs, labels, task_loss, total_loss, tuple_base
from tests.core.test_criterion import TARGETS, criterion, upstream_sum

LOSSES, PARAMETERS = "HERO's losses took no part in the last training steps", "the last two steps changed the base"


def sgd(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)


def train(model, loss, optimizer, steps=5, accumulate=1):
    """What a training says, step by step."""
    model.train()
    said = []
    for step in range(steps):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            batch = inputs()
            loss(model, model(*batch), batch.video_mask).backward()
        said.append([str(each.message) for each in caught])
        if (step + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return said


def without(model, outputs, video_mask):
    return task_loss(outputs)


def by_criterion(model, outputs, video_mask):
    wrapped = wrap_criterion(criterion())
    return upstream_sum(wrapped(outputs, TARGETS), wrapped.weight_dict)


def by_hand(model, outputs, video_mask):
    return task_loss(outputs) + outputs["hero"]["masked_relevance"].square().mean()


def separately(model, outputs, video_mask):
    task_loss(outputs).backward(retain_graph=True)
    task_loss(outputs).backward(retain_graph=True)
    return model.weighted_hero_loss(video_mask)


def by_criterion_of_highlights(model, outputs, video_mask):
    """It has no labels for HERO's relevance loss, so that nothing of HERO's is in the sum."""
    base = criterion()
    base.use_matcher = False
    wrapped = wrap_criterion(base, model.config)
    losses = wrapped(outputs, TARGETS)
    assert not {"loss_relevance", "loss_consistency"} & set(losses)
    return upstream_sum(losses, wrapped.weight_dict)


CHOICES = [{}, {"relevance": "pair"}, {"levels": 1, "sgvf": False}, {"checkpoint": True}, {"gate": "sigmoid"}]


@pytest.mark.parametrize("choices", CHOICES)
def test_losses_that_nobody_reads_are_told_once(choices):
    model = wrap_model(dict_base(), **choices)
    said = train(model, without, sgd(model))
    assert [len(each) for each in said] == [0, 0, 1, 0, 0] and LOSSES in said[2][0] and "wrap_criterion" in said[2][0]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("loss", [total_loss, by_criterion, by_hand, separately])
def test_losses_that_somebody_reads_are_not(loss, accumulate):
    model = wrap_model(dict_base())
    assert not any(train(model, loss, sgd(model), accumulate=accumulate))


def test_parameters_that_the_optimizer_lacks_are_told_once():
    base = tuple_base()
    optimizer = sgd(base)
    said = train(wrap_model(base), total_loss, optimizer)
    assert [len(each) for each in said] == [0, 0, 1, 0, 0] and PARAMETERS in said[2][0]
    assert "add_param_group" in said[2][0]
    base = tuple_base()
    optimizer = sgd(base)
    assert not any(train(wrap_model(base), total_loss, optimizer, steps=6, accumulate=3))  # one step is too few
    model = wrap_model(tuple_base())
    optimizer = sgd(model.base)
    optimizer.add_param_group({"params": model.hero.parameters()})
    assert not any(train(model, total_loss, optimizer))


@pytest.mark.parametrize("kind", ["foreach", "fused", "plain"])
def test_every_way_of_a_step_is_seen(kind):
    model = wrap_model(tuple_base())
    ways = {"foreach": {"foreach": True}, "fused": {"fused": True}, "plain": {"foreach": False}}
    assert not any(train(model, total_loss, torch.optim.AdamW(model.parameters(), **ways[kind])))


def test_who_does_not_train_hero_is_left_alone():
    model = wrap_model(tuple_base(), levels=2)
    model.hero.requires_grad_(False)
    assert not any(train(model, without, sgd(model)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            task_loss(model.eval()(*inputs())).backward()
            with torch.no_grad():
                model.train()(*inputs())


def test_a_frozen_base_and_losses_without_weight():
    model = wrap_model(tuple_base(), freeze_base=True)
    assert not any(train(model, total_loss, sgd(model)))
    model = wrap_model(tuple_base(), cmtr=False, relevance_weight=0.0, consistency_weight=0.0)
    assert not any(train(model, without, sgd(model)))


def test_a_frozen_base_whose_optimizer_lacks_hero_is_told_in_the_end():
    base = tuple_base()
    optimizer = sgd(base)
    model = wrap_model(base, freeze_base=True)
    said = [text for each in train(model, total_loss, optimizer, steps=103) for text in each]
    assert len(said) == 1 and "have changed nothing of HERO" in said[0] and "add_param_group" in said[0]


@pytest.mark.parametrize("name", ["video_mask", "query_mask"])
def test_masks_that_are_not_1_at_real_places_are_told(name):
    batch, what = inputs(), "clips" if name == "video_mask" else "words"
    added = batch._replace(**{name: (1 - getattr(batch, name)) * -1e4})
    with pytest.raises(ValueError, match=f"{name} must be 1 at real {what} and 0 at padding, got .* -10000"):
        wrap_model(tuple_base())(*added)
    model = wrap_model(tuple_base())
    with pytest.warns(UserWarning, match=f"{name} has no real {what} in 1 of 3 samples"):
        one_empty = getattr(batch, name).clone()
        one_empty[1] = 0
        model(*batch._replace(**{name: one_empty}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(*batch)


def test_losses_after_two_runs_are_told_to_be_of_the_last():
    model, batch = wrap_model(tuple_base()), inputs()
    for times in (1, 2, 1):
        for _ in range(times):
            model(*batch)
        with model.eval().disable_hero():
            model(*batch)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model.train().weighted_hero_loss(labels(batch.video_mask))
        assert [f"the model has run {times} times in training" in str(each.message) for each in said] == [True] * (
            times - 1
        )


def test_labels_of_another_coding_are_told():
    batch = inputs()
    for coding, said in ((lambda inside: 2 * inside - 1, "are they -1 there"), (lambda inside: inside, "")):
        model = wrap_model(tuple_base())
        model(*batch)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            model.weighted_hero_loss(coding(labels(batch.video_mask).float()))
        assert [said in str(each.message) for each in heard] == [True] * bool(said)


def test_a_model_in_training_is_copied_with_what_it_saw():
    model = wrap_model(tuple_base())
    train(model, total_loss, sgd(model), steps=2)
    twin = copy.deepcopy(model)
    assert not any(train(twin, without, sgd(twin)))


def test_a_criterion_of_highlights_alone_is_no_mistake():
    model = wrap_model(dict_base(), cmtr=False)
    assert not any(train(model, by_criterion_of_highlights, sgd(model)))
    model = wrap_model(dict_base(), cmtr=False)
    assert any(LOSSES in text for each in train(model, without, sgd(model)) for text in each)


def test_an_optimizer_that_writes_past_torchs_count_is_seen():
    model = wrap_model(tuple_base(), freeze_base=True)

    class Past(torch.optim.SGD):
        def step(self):
            for parameter in self.param_groups[0]["params"]:
                if parameter.grad is not None:
                    parameter.data -= 1e-3 * parameter.grad

    assert not any(train(model, total_loss, Past(model.hero.parameters(), lr=1.0), steps=103))
