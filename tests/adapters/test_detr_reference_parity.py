"""The reference Moment-DETR, QD-DETR and TR-DETR compute what their authors' do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adapters import upstream_detr
from tests.adapters.detr_cases import MODELS, WITHOUT_DROPOUT, Case, build, flat, total

TOLERANCE = 1e-5

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
}
ALL = [(name, case) for name in MODELS for case in [*CASES, *ONE_MODELS_CASES[name]]]


def pair(name, fields, dtype=torch.float32):
    """Upstream's model and the reference with its weights."""
    torch.manual_seed(0)
    theirs, _ = upstream_detr.build(name, **{**WITHOUT_DROPOUT, **fields})
    # A constant in upstream's code, no option of it.
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ours = build(name, **fields)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.to(dtype), ours.to(dtype)


def largest(first, second):
    """Name and size of the largest difference."""
    assert set(first) == set(second)
    worst = {n: (first[n].double() - second[n].double()).abs().max().item() if first[n].numel() else 0.0 for n in first}
    name = max(worst, key=worst.get)
    return worst[name], name


def assert_equal_models(name, size, fields, train=True, seed=0):
    theirs, ours = pair(name, fields)
    inputs = Case.random(*size, seed=seed).inputs()
    wanted, got = flat(theirs.train(train)(*inputs)), flat(ours.train(train)(*inputs))
    assert {k: (v.shape, v.dtype) for k, v in got.items()} == {k: (v.shape, v.dtype) for k, v in wanted.items()}
    difference, where = largest(got, wanted)
    print(f"difference of outputs {difference:.1e}")  # pytest -s
    assert difference < TOLERANCE, where


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("name", "case"), ALL)
def test_outputs_are_upstreams(name, case, train):
    size, fields = {**CASES, **ONE_MODELS_CASES[name]}[case]
    assert_equal_models(name, size, fields, train)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=12, deadline=None)
@given(batch=st.integers(1, 6), clips=st.integers(1, 75), words=st.integers(1, 32), seed=st.integers(0, 10**6))
def test_outputs_are_upstreams_at_any_size(name, batch, clips, words, seed):
    assert_equal_models(name, (batch, clips, words), {}, seed=seed)


@pytest.mark.parametrize(("name", "case"), ALL)
def test_gradients_are_upstreams(name, case):
    size, fields = {**CASES, **ONE_MODELS_CASES[name]}[case]
    gradients = []
    for model in pair(name, fields, torch.float64):
        inputs = [x.clone().requires_grad_(x.dim() == 3) for x in Case.random(*size).inputs(torch.float64)]
        total(model.train()(*inputs)).backward()
        of_weights = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        # Upstream runs parts whose outputs it drops: a gradient of exact zeros is none.
        gradients.append(
            {n: g for n, g in of_weights.items() if g.any()} | {"text": inputs[0].grad, "video": inputs[2].grad}
        )
    wanted, got = gradients
    difference, where = largest(got, wanted)
    print(f"difference of gradients in float64 {difference:.1e}, at {where}")
    assert difference < 1e-7, where


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_are_distributed_as_upstreams(name):
    torch.manual_seed(0)
    theirs, _ = upstream_detr.build(name)
    spread = {n: p.detach().std(correction=0).item() for n, p in theirs.named_parameters()}
    ours = build(name)
    for parameter_name, parameter in ours.named_parameters():
        tolerance = 3 * spread[parameter_name] / parameter.numel() ** 0.5 + 1e-6
        assert parameter.std(correction=0).item() == pytest.approx(spread[parameter_name], abs=tolerance), (
            parameter_name
        )
