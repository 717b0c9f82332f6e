"""The reference Moment-DETR, QD-DETR and TR-DETR compute what their authors' do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_plugin.adapters.detr.matcher import span_cxw_to_xx
from tests.adapters import authors
from tests.adapters.detr_bases import MODELS, VIDEO_DIM, WITHOUT_DROPOUT, Case, flat, reference, total

pytestmark = pytest.mark.upstream

TOLERANCE = 1e-5
AUDIO = ("a_feat_dir", "a_feat_dim", "v_feat_dim")
"""Upstream's options where there is audio; ours knows the sum of widths."""

USUAL = (4, 20, 6)
CASES = {
    "usual": (USUAL, {}),
    "full size": ((3, 75, 32), {}),
    "batch of one": ((1, 20, 6), {}),
    "one clip, one word": ((2, 1, 1), {}),
    "no auxiliary outputs": (USUAL, {"aux_loss": False}),
    "positions of words": (USUAL, {"use_txt_pos": True}),
    "alignment": (USUAL, {"contrastive_align_loss": True}),
    "alignment, last layer only": (USUAL, {"contrastive_align_loss": True, "aux_loss": False}),
    "one projection": (USUAL, {"n_input_proj": 1}),
    "three projections": (USUAL, {"n_input_proj": 3}),
    "other depths": (USUAL, {"enc_layers": 1, "dec_layers": 3, "nheads": 4, "num_queries": 5}),
    "one decoder layer": (USUAL, {"dec_layers": 1}),
}
ONE_MODELS_CASES = {
    "moment_detr": {
        "classified spans": (USUAL, {"span_loss_type": "ce"}),
        "pre-norm": (USUAL, {"pre_norm": True}),
        "narrow": (USUAL, {"hidden_dim": 32}),
    },
    "qd_detr": {},
    "tr_detr": {"long clips": (USUAL, {"clip_length": 3})},
}
ALL = [(name, case) for name in MODELS for case in [*CASES, *ONE_MODELS_CASES[name]]]
BACKWARD = ["usual", "positions of words", "alignment", "three projections", "other depths"]
ALL_BACKWARD = [(name, case) for name in MODELS for case in [*BACKWARD, *ONE_MODELS_CASES[name]]]


def pair(name, fields, dtype=torch.float32):
    """Upstream's model, with random vectors where it starts from zeros and ones, and the reference with its weights."""
    torch.manual_seed(0)
    theirs, _ = authors.build(name, **{**WITHOUT_DROPOUT, **fields})
    for parameter in theirs.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, parameter.detach().mean().item(), 0.1)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # TR-DETR's fusion has one that is no option
    ours = reference(name, **{ours: value for ours, value in fields.items() if ours not in AUDIO})
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.to(dtype), ours.to(dtype)


def largest(first, second):
    """Size and name of the largest difference."""
    assert set(first) == set(second)
    worst = {n: (first[n].double() - second[n].double()).abs().max().item() if first[n].numel() else 0.0 for n in first}
    name = max(worst, key=worst.get)
    return worst[name], name


def undecided(outputs, clips):
    """Samples whose best moment hangs on rounding, as where a video of one clip leaves all queries alike: (B,)."""
    first, second = outputs["pred_logits"].softmax(-1)[..., 0].topk(2).values.unbind(-1)
    bounds = span_cxw_to_xx(outputs["pred_spans"]) * clips
    return (first - second < 1e-5) | ((bounds - bounds.round()).abs() < 1e-5).flatten(1).any(1)


def assert_equal_models(models, inputs, train):
    theirs, ours = (model.train(train)(*inputs) for model in models)
    if "src_vid_ed" in theirs:
        unclear = undecided(theirs, inputs[2].shape[1])
        for outputs in (theirs, ours):
            outputs["saliency_scores"] = outputs["saliency_scores"].masked_fill(unclear.unsqueeze(1), 0)
    wanted, got = flat(theirs), flat(ours)
    assert {k: (v.shape, v.dtype) for k, v in got.items()} == {k: (v.shape, v.dtype) for k, v in wanted.items()}
    difference, where = largest(got, wanted)
    print(f"difference of outputs {difference:.1e}, at {where}")  # pytest -s
    assert difference < TOLERANCE, where


@pytest.mark.parametrize(("name", "case"), ALL)
def test_outputs_are_upstreams(name, case):
    size, fields = {**CASES, **ONE_MODELS_CASES[name]}[case]
    models = pair(name, fields)
    for train in (False, True):
        assert_equal_models(models, Case.random(*size).inputs(), train)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None)
@given(batch=st.integers(1, 6), clips=st.integers(1, 75), words=st.integers(1, 32), seed=st.integers(0, 10**6))
def test_outputs_are_upstreams_at_any_size(name, batch, clips, words, seed):
    assert_equal_models(pair(name, {}), Case.random(batch, clips, words, seed).inputs(), train=True)


@pytest.mark.parametrize("name", ["qd_detr", "tr_detr"])
def test_audio_joins_the_video_as_upstream(name):
    models = pair(name, {"a_feat_dir": "given", "a_feat_dim": 5, "v_feat_dim": VIDEO_DIM - 5})
    text, text_mask, video, video_mask = Case.random(*USUAL).inputs()
    assert_equal_models(models, (text, text_mask, video[..., :-5], video_mask, video[..., -5:], video_mask), train=True)


@pytest.mark.parametrize(("name", "case"), ALL_BACKWARD)
def test_gradients_are_upstreams(name, case):
    size, fields = {**CASES, **ONE_MODELS_CASES[name]}[case]
    gradients = []
    for model in pair(name, fields, torch.float64):
        inputs = [x.clone().requires_grad_(x.dim() == 3) for x in Case.random(*size).inputs(torch.float64)]
        total(model.train()(*inputs)).backward()
        of_weights = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        # Upstream runs parts whose outputs it drops: a gradient of exact zeros is none.
        of_inputs = {"text": inputs[0].grad, "video": inputs[2].grad}
        gradients.append({n: g for n, g in of_weights.items() if g.any()} | of_inputs)
    wanted, got = gradients
    difference, where = largest(got, wanted)
    print(f"difference of gradients in float64 {difference:.1e}, at {where}")
    assert difference < 1e-7, where


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_are_distributed_as_upstreams(name):
    torch.manual_seed(0)
    theirs, _ = authors.build(name)
    wanted = dict(theirs.named_parameters())
    for n, parameter in reference(name).named_parameters():
        if parameter.numel() == 1 and "activation" not in n:
            continue  # one draw tells nothing of a bias
        spread = wanted[n].std(correction=0).item()
        by_chance = 5 * spread / parameter.numel() ** 0.5 + 1e-6
        assert parameter.std(correction=0).item() == pytest.approx(spread, abs=by_chance), n
        assert parameter.mean().item() == pytest.approx(wanted[n].mean().item(), abs=2 * by_chance), n
