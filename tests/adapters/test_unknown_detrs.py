"""Bases of the DETRs' shape under names that no adapter knows: what they return that no known one does."""

from __future__ import annotations

import warnings

import pytest
import torch

from hero_plugin import HeroConfig, unwrap_model, wrap_model
from hero_plugin.adapters.detr.adapter import DETRAdapter, FirstPassAdapter
from hero_plugin.adapters.detr.lighthouse import TaskWeaveAdapter
from hero_plugin.adapters.qd_detr import QDDETR
from tests.adapters.detr_bases import batch, reference, without_dropout
from tests.core.bases import shake
from tests.old_torch import needs_compiler

SMALL = HeroConfig(levels=2, stride=1, dropout=0.0)


def unknown(forward=None):
    """QD-DETR under another name, and with another forward."""
    base = reference("qd_detr", hidden_dim=32)
    own = {} if forward is None else {"forward": forward}
    others = {"plain": QDDETR.forward, "__module__": "somebody.elses.code"}
    base.__class__ = type("Unheard", (QDDETR.__mro__[1],), {**vars(QDDETR), **own, **others})
    return shake(without_dropout(base), 0.02)


def moved(base, adapter=DETRAdapter):
    """The base with HERO that filters."""
    model = shake(wrap_model(base, config=SMALL, adapter=adapter), 0.02)
    with torch.no_grad():
        model.hero.sgvf.strength.fill_(0.5)
    return model


def returns_clips(self, src_txt, src_txt_mask, src_vid, src_vid_mask):
    outputs = self.plain(src_txt, src_txt_mask, src_vid, src_vid_mask)
    clips = self.input_vid_proj(src_vid)
    fused = clips + 0.0 * self.input_txt_proj(src_txt).mean(1, keepdim=True)
    return {**outputs, "clips": clips, "pooled": [clips.mean(1)], "fused": fused}


def test_clips_that_saw_no_query_stay_as_they_are():
    """A contrastive loss would else tell a video's query by the filter; weights of zero do not hide that one was seen.

    Only in training: outside it no loss learns, and the further pass of the base is spared.
    """
    base = unknown(returns_clips).train()
    inputs = batch("reference.qd_detr")
    model = moved(base)  # moves the base, too
    expected = base(**inputs)
    outputs = model(**inputs)
    assert torch.equal(outputs["clips"], expected["clips"])
    assert torch.equal(outputs["pooled"][0], expected["pooled"][0])
    assert not torch.allclose(outputs["fused"], expected["fused"], atol=1e-3)
    assert model.grounder.unseen == ("clips", "pooled")
    model.zero_grad()
    outputs["clips"].square().sum().backward()
    assert base.input_vid_proj[0].net[1].weight.grad.any() and model.hero.sgvf.strength.grad is None
    with torch.no_grad():
        assert not torch.allclose(model.eval()(**inputs)["clips"], expected["clips"], atol=1e-3)


@needs_compiler
@pytest.mark.slow
def test_a_model_that_is_compiled_before_it_has_run_is_told_of_it():
    base = unknown(returns_clips).train()
    inputs = batch("reference.qd_detr")
    for ran in (False, True):
        torch._dynamo.reset()
        model = moved(base)
        expected = base(**inputs)["clips"]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            if ran:
                model(**inputs)
            clips = torch.compile(model, backend="eager", fullgraph=True)(**inputs)["clips"]
        assert any("Run one forward in training before torch.compile" in str(each.message) for each in told) is not ran
        assert torch.allclose(clips, expected, atol=1e-6) is ran
    torch._dynamo.reset()


def takes_lists(self, src_txt, src_txt_mask, src_vid, src_vid_mask, scales=(), vid=None):
    outputs = self.plain(src_txt, src_txt_mask, src_vid, src_vid_mask)
    assert vid is None or len(vid) == len(src_vid)
    return {**outputs, "pred_logits": outputs["pred_logits"] * sum(scales)}


class TakesScales(DETRAdapter):
    constant = ("scales",)


@pytest.mark.parametrize("scales", [[0.2, 0.8], [0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.4]])
def test_a_list_says_whether_it_holds_one_item_per_sample(scales):
    """As many as there are samples, or not: that says nothing."""
    base = unknown(takes_lists).eval()
    inputs = batch("reference.qd_detr")
    names = ["a"] * len(inputs["src_vid"])
    with pytest.raises(ValueError, match=r"extra\['scales'\] is a list without tensors"):
        wrap_model(base, adapter=DETRAdapter)(**inputs, scales=scales)
    model = wrap_model(base, adapter=TakesScales)
    for given in ({}, {"vid": names}):
        outputs, expected = (one(**inputs, **given, scales=scales)["pred_logits"] for one in (model, base))
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


def returns_offsets(self, src_txt, src_txt_mask, src_vid, src_vid_mask):
    outputs = self.plain(src_txt, src_txt_mask, src_vid, src_vid_mask)
    return {**outputs, "pred_spans": outputs["pred_spans"] * torch.tensor([-1.0, 1.5])}


@torch.no_grad()
def test_spans_outside_their_range_are_those_of_the_base():
    base = unknown(returns_offsets).eval()
    inputs = batch("reference.qd_detr")
    expected = base(**inputs)["pred_spans"]
    assert expected.min() < 0 and expected.max() > 1
    outputs = wrap_model(base, config=SMALL, adapter=DETRAdapter)(**inputs)
    torch.testing.assert_close(outputs["pred_spans"], expected, rtol=0, atol=1e-5)


def renamed(self, words, words_mask, motion, motion_mask):
    return self.plain(words, words_mask, motion, motion_mask)


class Renamed(DETRAdapter):
    """The adapter of a fork that calls its arguments otherwise: all that it needs."""

    inputs = ("words", "words_mask", "motion", "motion_mask")


@torch.no_grad()
def test_a_fork_that_renamed_its_arguments_says_how():
    base = unknown(renamed).eval()
    with pytest.raises(TypeError, match=r"no argument 'src_txt'.*subclass DETRAdapter with inputs = \(words, their"):
        wrap_model(base, adapter=DETRAdapter)
    given = batch("reference.qd_detr")
    inputs = dict(zip(Renamed.inputs, (given[name] for name in DETRAdapter.inputs), strict=True))
    expected = base(**inputs)
    model = wrap_model(base, config=HeroConfig(levels=1, sgvf=False), adapter=Renamed)
    assert torch.equal(model(**inputs)["pred_spans"], expected["pred_spans"])
    assert torch.equal(model(*inputs.values())["pred_spans"], expected["pred_spans"])
    assert unwrap_model(model) is base


def test_an_unknown_base_of_their_shape_is_told_of_their_adapter():
    with pytest.raises(TypeError) as error:
        wrap_model(unknown())
    said = str(error.value)
    assert "no adapter knows Unheard" in said
    assert "wrap_model(base, adapter=DETRAdapter), from hero_plugin.adapters.detr.adapter" in said
    with pytest.raises(TypeError) as error:
        wrap_model(torch.nn.Linear(2, 2))
    assert "DETRAdapter" not in str(error.value)


def test_taskweave_without_its_switch_may_read_either_way():
    base = unknown()
    TaskWeaveAdapter.check(base)
    assert TaskWeaveAdapter(base).skips_decoder is False
    base.mr2hd = False
    assert TaskWeaveAdapter(base).skips_decoder is True


class Gated(torch.nn.Module):
    """A DETR whose saliency reads a second pass of the transformer, through a gate that starts shut."""

    def __init__(self):
        super().__init__()
        self.input_vid_proj, self.input_txt_proj = torch.nn.Linear(6, 8), torch.nn.Linear(5, 8)
        self.transformer, self.gate = torch.nn.Bilinear(8, 8, 8), torch.nn.Parameter(torch.zeros(()))
        self.transformer.d_model = 8

    def forward(self, src_txt, src_txt_mask, src_vid, src_vid_mask):
        words = self.input_txt_proj(src_txt).mean(1, keepdim=True).expand(-1, src_vid.shape[1], -1)
        once = self.transformer(self.input_vid_proj(src_vid), words)
        return {"saliency_scores": (once + self.gate * self.transformer(once, words)).sum(-1)}


class GatedAdapter(FirstPassAdapter):
    optional_outputs = (*FirstPassAdapter.optional_outputs, "pred_spans", "pred_logits")


def test_a_pass_that_counts_for_nothing_yet_is_not_left_out():
    batch = torch.rand(2, 3, 5), torch.ones(2, 3), torch.rand(2, 4, 6), torch.ones(2, 4)
    model = wrap_model(Gated(), adapter=GatedAdapter, config=SMALL).train()
    model(*batch)
    assert model.grounder.reads_all
