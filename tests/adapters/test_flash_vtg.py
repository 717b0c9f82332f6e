"""FlashVTG, as its authors have it, under HERO: the same moments, sorted once the levels are combined."""

from __future__ import annotations

import copy
from argparse import Namespace

import pytest
import torch

from hero_plugin import HeroConfig, unwrap_model, wrap_criterion, wrap_model
from hero_plugin.adapters.flash_vtg import FlashVTGAdapter
from hero_plugin.integrations.tools.bench.upstream import load_upstream_detr
from tests.adapters import authors
from tests.adapters.detr_bases import batch, flat, grounder_of, targets, without_dropout
from tests.core.bases import shake
from tests.resources import upstream

pytestmark = pytest.mark.upstream

HERO = {"levels": 2, "stride": 1, "dropout": 0.0}
BUNDLE = {"type": "BundleLoss", "loss_sal": {"type": "SampledNCELoss"}}
MOMENTS = {**BUNDLE, "loss_cls": {"type": "FocalLoss"}, "loss_reg": {"type": "L1Loss"}}
HIGHLIGHTS = {**BUNDLE, "loss_cls": {"type": "DynamicBCELoss"}, "loss_reg": None}
OPTIONS = {"kernel_size": 5, "num_conv_layers": 1, "num_mlp_layers": 3, "lw_reg": 1, "lw_cls": 5, "lw_sal": 0.1}


def build(use_neg=True, strides=(1, 2, 4, 8), losses=MOMENTS):
    """A model and its criterion, by the authors' own code; skips the test where that or nncore is not there."""
    clone, nncore = upstream("FlashVTG"), pytest.importorskip("nncore")
    parts = {"pyramid_cfg": {"type": "ConvPyramid"}, "pooling_cfg": {"type": "AdaPooling"}}
    head = {"type": "ConvHead", "kernal_size": 3}
    model = {"strides": strides, "buffer_size": 64, "max_num_moment": 10, "coord_head_cfg": head, "loss_cfg": losses}
    options = {**authors.DEFAULTS, **OPTIONS, "use_neg": use_neg, "cfg": nncore.Config(model={**model, **parts})}
    torch.manual_seed(0)
    return load_upstream_detr(clone, "FlashVTG.model").build_model1(Namespace(**options))


def inputs(samples=3):
    """A batch as FlashVTG's training loop gives it: two queries of one video, and one of another."""
    taken = batch("lighthouse.cg_detr")
    labels = [{"qid": qid, "relevant_windows": [[4, 9], [10, 13]][: 1 + qid % 2]} for qid in taken["qid"]]
    given, wanted = (
        {name: value[:samples] for name, value in each.items()} for each in (taken, {**targets(taken), "label": labels})
    )
    return {**given, "targets": {**wanted, "fps": torch.full((256,), 0.5)}}


def step(model, criterion, given=None, seed=2):
    """The training loop's step: its losses are those in the outputs."""
    given = given or inputs()
    torch.manual_seed(seed)
    model.zero_grad()
    outputs = model(**given)
    criterion((given["targets"]["label"], {}), outputs, given["targets"])
    losses = {name: value for name, value in outputs.items() if "loss" in name}
    total = sum(losses[name] * criterion.weight_dict[name] for name in losses if name in criterion.weight_dict)
    total.backward()
    return outputs, losses, total


def same(one, other, **tolerances):
    """Whether two outputs hold the same, but for rounding where there are tolerances."""
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] is None} == {name for name in other if other[name] is None}
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    torch.testing.assert_close(other, one, **(tolerances or {"rtol": 0, "atol": 0}))


def as_base(grounder, given):
    """What the base returns, by HERO's way without HERO."""
    pair = grounder.embed(**given)
    return grounder.complete(grounder.ground(pair).outputs, pair)


@pytest.mark.parametrize("use_neg", [True, False])
def test_off_is_bit_identical(use_neg):
    base, criterion = build(use_neg)
    model = wrap_model(copy.deepcopy(base), config=HeroConfig.off())
    assert isinstance(model.grounder, FlashVTGAdapter)
    (one, _, total), (other, _, of_model) = (step(each.train(), criterion) for each in (base, model))
    same(one, other)
    assert torch.equal(total, of_model)
    gradients = [[p.grad for p in each.parameters() if p.grad is not None] for each in (base, model)]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    with torch.no_grad():
        same(base.eval()(**inputs(1)), model.eval()(**inputs(1)))


@pytest.mark.parametrize("strides", [(1, 2, 4, 8), (1,)])
@pytest.mark.parametrize("use_neg", [True, False])
@torch.no_grad()
def test_behind_the_seam_is_the_bases_own_forward(use_neg, strides):
    """Bit for bit, in training, with its moments sorted, and in eval mode, where it takes one sample."""
    base, _ = build(use_neg, strides)
    grounder = grounder_of(without_dropout(base))
    for mode, given in ((True, inputs()), (False, inputs(1)), (False, {**inputs(1), "targets": {}})):
        expected = base.train(mode)(**given)
        same(expected, as_base(grounder, given))
    assert as_base(grounder, inputs(1))["_out"]["label"] == inputs(1)["targets"]["label"][0]
    with pytest.raises(ValueError, match=r"one sample at a time in eval mode \(--eval_bsz 1\), got 3"):
        as_base(grounder, inputs())


@torch.no_grad()
def test_levels_in_the_batch_are_the_base_once_per_level():
    base, _ = build()
    grounder, model = grounder_of(without_dropout(base).train()), shake(wrap_model(base, **HERO), 0.05)
    pair = grounder.embed(**inputs())
    words = model.hero.words(pair.query, pair.query_mask)
    clips = model.hero.clips(pair.video, words, pair.query_mask)
    folded = grounder.ground(pair.at_levels(clips, words)).outputs
    single = [grounder.ground(pair.at_levels(clips[n : n + 1], words[n : n + 1])).outputs for n in range(2)]
    for name in ("out_class", "out_coord", "saliency_scores", "t2vattnvalues", "real_neg_mask", "query_emb"):
        expected = torch.cat([one[name] for one in single])
        torch.testing.assert_close(folded[name], expected, rtol=1e-5, atol=1e-5)
    # A level's last sample meets the first one's words as the next level has them, as in QD-DETR.
    assert folded["saliency_scores_neg"].shape[0] == 2 * single[0]["saliency_scores_neg"].shape[0] == 4


@torch.no_grad()
def test_relate_is_the_relevance_that_ground_returns_for_less_work():
    base, _ = build()
    model = shake(wrap_model(without_dropout(base), **HERO), 0.05).train()
    grounder, calls = model.grounder, []
    base.transformer.register_forward_hook(lambda *_: calls.append("transformer"))
    base.pyramid.register_forward_hook(lambda *_: calls.append("pyramid"))
    pair = grounder.embed(**inputs())
    words = model.hero.words(pair.query, pair.query_mask)
    levels = pair.at_levels(model.hero.clips(pair.video, words, pair.query_mask), words)
    expected = grounder.ground(levels).relevance
    assert calls == ["transformer", "pyramid", "transformer"]  # the second: negative pairs
    for _ in range(2):  # the first time in both ways, as the class is not ours
        calls.clear()
        torch.testing.assert_close(grounder.relate(levels), expected, rtol=1e-6, atol=1e-6)
    assert calls == ["transformer"]


@torch.no_grad()
def test_a_fresh_wrapper_is_the_base():
    base, _ = build()
    without_dropout(base)
    model = wrap_model(copy.deepcopy(base), stride=1, dropout=0.0)
    outputs = model.train()(**inputs())
    assert set(outputs.pop("hero")) == {"relevance", "masked_relevance", "video_mask", "settings"}
    same(base.train()(**inputs()), outputs, rtol=3e-6, atol=3e-6)
    same(base.eval()(**inputs(1)), model.eval()(**inputs(1)), rtol=3e-6, atol=3e-6)


@torch.no_grad()
def test_moments_are_sorted_once_the_levels_are_combined():
    base, _ = build()
    model = shake(wrap_model(base, **HERO), 0.2)
    for mode, samples in ((True, 3), (False, 1)):
        outputs = model.train(mode)(**inputs(samples))
        moments = outputs["pred_spans"] if mode else outputs["_out"]["boundary"].unsqueeze(0)
        assert moments.shape == (samples, 30 if mode else 10, 3)  # clips of the pyramid; max_num_moment
        assert (moments[..., 2].diff(dim=1) <= 0).all()
    outputs = model.train()(**inputs())
    assert torch.equal(outputs["pred_spans"][..., 2], outputs["out_class"].sigmoid()[..., 0].sort(1, True)[0])


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("use_neg", [True, False])
def test_three_training_steps_move_all_of_hero(use_neg, checkpoint):
    base, criterion = build(use_neg)
    step(base.train(), criterion)
    unused = {f"base.{name}" for name, parameter in base.named_parameters() if parameter.grad is None}
    assert all(name.startswith("base.txt_position_embed.") for name in unused)
    model = shake(wrap_model(base, **HERO, checkpoint=checkpoint), 0.005).train()
    criterion, optimizer = wrap_criterion(criterion), torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {name: parameter.clone() for name, parameter in model.hero.named_parameters()}
    for seed in range(3):
        _, losses, total = step(model, criterion, seed=seed)
        assert total.isfinite() and {"loss_reg", "loss_relevance", "loss_consistency"} < set(losses)
        assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == unused
        optimizer.step()
    assert not [name for name, parameter in model.hero.named_parameters() if torch.equal(parameter, before[name])]
    assert unwrap_model(model) is base


@pytest.mark.parametrize("samples", [3, 1])
def test_a_frozen_base_trains_hero_in_eval_mode(samples):
    base, criterion = build()
    model = wrap_model(base, **HERO, freeze_base=True).train()
    outputs, losses, _ = step(model, wrap_criterion(criterion), inputs(samples))
    assert not base.training and "loss_relevance" in losses and ("_out" in outputs) == (samples == 1)
    assert all(parameter.grad is None for parameter in base.parameters())
    assert model.hero.sgvf.strength.grad is not None
    with torch.no_grad():
        assert model.eval()(**inputs(1))["_out"]["boundary"].shape == (10, 3)


def test_highlights_alone_say_nothing_of_relevance():
    """TVSum's and YouTube's moments are [0, 0]: taken for "no clip is relevant", they would teach the opposite."""
    base, criterion = build(strides=(1,), losses=HIGHLIGHTS)
    model, given = shake(wrap_model(base, **HERO), 0.05).train(), inputs()
    given["targets"]["span_labels"] = [{"spans": torch.zeros(1, 2)} for _ in range(3)]
    for label in given["targets"]["label"]:
        label["relevant_windows"] = None
    _, losses, total = step(model, wrap_criterion(criterion), given)
    assert losses["loss_relevance"] == 0 and losses["loss_consistency"] > 0 and total.isfinite()
