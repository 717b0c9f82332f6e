"""The DETR family's descendants in lighthouse."""

from __future__ import annotations

import copy

import pytest
import torch

from hero_plugin import HeroConfig, unwrap_model, wrap_criterion, wrap_model
from hero_plugin.adapters.detr import adapter
from tests.adapters.detr_bases import (
    AUDIO_DIM,
    RELATIVES,
    batch,
    build,
    flat,
    grounder_of,
    loss,
    model_of,
    repeated,
    run,
    step,
    targets,
    without_dropout,
)
from tests.core.bases import shake

pytestmark = pytest.mark.upstream

SMALL = HeroConfig(levels=2, stride=1)
every_relative = pytest.mark.parametrize("name", RELATIVES[:4])
every_way = pytest.mark.parametrize("name", RELATIVES)
LATE = {"uvcom": 80, "taskweave": 100}
"""The epoch from which a base's forward takes another way."""


def late(name, inputs):
    """The same batch in a later epoch; None where epochs are nothing to the base."""
    argument = {"uvcom": "epoch", "taskweave": "epoch_i"}.get(model_of(name))
    return None if argument is None else {**inputs, argument: LATE[model_of(name)]}


def ways(name):
    return [inputs for inputs in (batch(name), late(name, batch(name))) if inputs is not None]


def equal(one, other):
    one, other = flat(one), flat(other)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def close(one, other, atol):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=atol, msg=lambda m, key=key: f"{key} {m}")


@pytest.mark.parametrize("train", [True, False])
@every_relative
def test_off_is_bit_identical(name, train):
    base, criterion = build(name)
    model = wrap_model(copy.deepcopy(base), config=HeroConfig.off()).train(train)
    assert type(model.grounder).__name__.lower() == model_of(name).replace("_", "") + "adapter"
    results = []
    for one in (base.train(train), model):
        outputs = run(name, one, batch(name)) if not train else None
        if train:
            outputs, total = step(name, one, criterion)
            outputs = [outputs, total, [p.grad for p in one.parameters() if p.grad is not None]]
        results.append(outputs)
    assert equal(*results)


@every_way
@torch.no_grad()
def test_ground_behind_the_seam_is_the_bases_own_forward(name):
    """Bit for bit at one level; up to a larger batch's rounding where all levels are the same."""
    base, _ = build(name)
    grounder = grounder_of(base.eval())
    for inputs in ways(name):
        expected, pair = base(**inputs), grounder.embed(**inputs)
        assert equal(grounder.ground(pair).outputs, expected)
        twice = pair.at_levels(pair.video.expand(2, -1, -1, -1), pair.query.expand(2, -1, -1, -1))
        outputs = grounder.ground(twice).outputs
        chosen = outputs["sim"].pop("negative_idx", None) if "sim" in outputs else None
        if chosen is not None:
            of_base = expected["sim"].pop("negative_idx")
            assert torch.equal(chosen, torch.cat([of_base + 3 * level for level in range(2)]))
        close(repeated(expected, grounder.kinds, 2), outputs, 2e-5)


@every_way
@torch.no_grad()
def test_relate_is_the_relevance_that_ground_returns(name, monkeypatch):
    base, _ = build(name)
    model = shake(wrap_model(base, config=SMALL), 0.05).eval()
    grounder = model.grounder
    for inputs in ways(name):
        pair = grounder.embed(**inputs)
        words = model.hero.words(pair.query, pair.query_mask)
        levels = pair.at_levels(model.hero.clips(pair.video, words, pair.query_mask), words)
        expected = grounder.ground(levels).relevance
        for compiling in (False, True):
            monkeypatch.setattr(adapter, "is_compiling", lambda compiling=compiling: compiling)
            # Relative: shaken TaskWeave's scores are in the hundreds.
            torch.testing.assert_close(grounder.relate(levels), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@every_relative
def test_a_fresh_wrapper_is_the_base(name):
    """All levels start at the query: same outputs, and the same loss but for HERO's."""
    base, criterion = build(name)
    without_dropout(base).train()
    model = wrap_model(copy.deepcopy(base), config=SMALL, dropout=0.0)
    totals = [step(name, one, criterion)[1] for one in (base, model)]
    torch.testing.assert_close(*totals, rtol=1e-5, atol=1e-3)
    with torch.no_grad():
        for inputs in ways(name):
            close(base.eval()(**inputs), model.eval()(**inputs), 1e-4)


@pytest.mark.slow
@every_relative
def test_three_training_steps_move_all_of_hero(name):
    base, criterion = build(name)
    step(name, base.train(), criterion)
    unused = {f"base.{key}" for key, parameter in base.named_parameters() if parameter.grad is None}
    model = shake(wrap_model(base, config=SMALL), 0.005).train()
    criterion = wrap_criterion(criterion, model.config)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {key: value.clone() for key, value in model.hero.named_parameters()}
    for seed in range(3):
        outputs, total = step(name, model, criterion, seed)
        hero = (outputs[0] if isinstance(outputs, tuple) else outputs)["hero"]
        assert total.isfinite() and set(hero) == {"relevance", "masked_relevance", "video_mask", "settings"}
        assert {key for key, parameter in model.named_parameters() if parameter.grad is None} == unused
        optimizer.step()
    assert all(value.isfinite().all() for value in model.parameters())
    assert not [key for key, value in model.hero.named_parameters() if torch.equal(value, before[key])]
    assert unwrap_model(model) is base


@every_relative
@torch.no_grad()
def test_audio_is_part_of_the_clips(name):
    base, _ = build(name, audio=True)
    grounder, inputs = grounder_of(base.eval()), batch(name)
    audio = {"src_aud": torch.randn(*inputs["src_vid"].shape[:2], AUDIO_DIM), "src_aud_mask": inputs["src_vid_mask"]}
    assert equal(grounder.ground(grounder.embed(**inputs, **audio)).outputs, base(**inputs, **audio))


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"levels": 1}, {"levels": 2, "stride": 1, "checkpoint": True}])
@pytest.mark.parametrize("name", RELATIVES[:3])
def test_one_level_and_recomputed(name, change):
    base, criterion = build(name)
    model = wrap_model(base, **change).train()
    outputs, total = step(name, model, wrap_criterion(criterion, model.config))
    assert total.isfinite() and flat(outputs).keys() - flat(run(name, base, batch(name))).keys() == {
        f"{'.0' if isinstance(outputs, tuple) else ''}.hero.{key}"
        for key in ("relevance", "masked_relevance", "video_mask")
    }
    assert torch.isfinite(model.weighted_hero_loss(torch.ones_like(batch(name)["src_vid_mask"])))


@torch.no_grad()
def test_eatrs_events_are_the_unfiltered_clips():
    base, _ = build("lighthouse.eatr")
    inputs = batch("lighthouse.eatr")
    expected = base.generate_pseudo_event(inputs["src_vid"], inputs["src_vid_mask"])
    events = wrap_model(base, config=SMALL).eval()(**inputs)["pseudo_event_spans"]
    assert len(events) == len(expected) == 3
    assert all(torch.equal(one, other) for one, other in zip(events, expected, strict=True))


@torch.no_grad()
def test_cg_detrs_negatives_are_those_of_other_videos():
    base, _ = build("lighthouse.cg_detr")
    inputs = batch("lighthouse.cg_detr")
    model = wrap_model(base, config=SMALL).eval()
    for vid, real in ((["a_0_1", "a_0_1", "b_0_1"], 2), (["a_0_1", "b_0_1", "c_0_1"], 3), (["a_0_1"] * 3, 0)):
        outputs = model(**{**inputs, "vid": tuple(vid)})
        assert outputs["real_neg_mask"].sum() == real
        negatives = outputs["saliency_scores_neg"]
        assert (negatives is None) if real == 0 else len(negatives) == real
        assert outputs["global_rep_tokens"] is base.global_rep_token
    assert model(**{**inputs, "vid": None, "qid": None})["real_neg_mask"] is None


def test_taskweaves_own_loop_needs_heros_losses_by_hand():
    """It groups losses by words in their names, and would leave HERO's out."""
    base, criterion = build("lighthouse.taskweave")
    model = wrap_model(base, config=SMALL).train()
    criterion, inputs = wrap_criterion(criterion, model.config), batch("lighthouse.taskweave")
    outputs, variances = model(**inputs)
    assert variances[0] is base.hd_log_var and variances[1] is base.mr_log_var
    words = ("giou", "span", "label", "class_error", "saliency")
    left_out = [key for key in criterion(outputs, targets(inputs)) if not any(word in key for word in words)]
    assert left_out == ["loss_relevance", "loss_consistency"]
    total = loss(criterion, outputs, inputs)
    total.backward()
    assert model.hero.sgvf.strength.grad.abs().sum() > 0
