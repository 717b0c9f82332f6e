"""Our one criterion against the three of the authors' repositories, loss by loss."""

from __future__ import annotations

import functools
import inspect
import runpy
from dataclasses import fields

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from tests.adapters.authors import DEFAULTS, UPSTREAM, build
from tests.adapters.criterion_cases import leaves, random_outputs, random_targets, training_sum
from tests.resources import upstream

pytestmark = pytest.mark.upstream

TOLERANCE = 1e-5
OPTIONS = {
    "moment_detr": {},
    "qd_detr": {"ranks": True, "negative_pairs": True},
    "tr_detr": {"ranks": True, "label_loss": "focal", "text_alignment": True},
}
CASES = {
    "one window each": ((20, 20, 20), (1, 1, 1)),
    "several windows, ragged": ((75, 12, 40, 3), (5, 1, 3, 2)),
    "more windows than queries": ((75, 75), (13, 2)),
    "one sample": ((9,), (2,)),
}


@functools.cache
def upstream_criterion(name, **options):
    return build(name, hidden_dim=32, **options)[1]


def our_criterion(name, use_matcher=True, **options):
    same = {field.name for field in fields(DETRConfig)}
    config = {key: value for key, value in {**DEFAULTS, **options}.items() if key in same}
    config = DETRConfig(text_dim=4, video_dim=4, **config)
    return SetCriterion(config, use_matcher=use_matcher, **OPTIONS[name])


@torch.no_grad()
def difference(got, wanted):
    """Absolute below 1, relative above: a few losses are sums over the clips."""
    return abs(float(got) - float(wanted)) / max(1.0, abs(float(wanted)))


def compare(name, case, saliency=True, layers=2, seeds=3, use_matcher=True, **options):
    """Losses, and gradients of their weighted sum, over a few draws; returns the largest difference of a loss."""
    lengths, windows = CASES[case]
    span_loss_type = options.get("span_loss_type", "l1")
    dataset = {} if use_matcher else {"dset_name": "tvsum"}
    theirs = upstream_criterion(name, **options, **dataset)
    ours, worst = our_criterion(name, use_matcher, **options), 0.0
    weights = {key: 1 + place for place, key in enumerate(theirs.weight_dict)}
    for seed in range(seeds):
        targets = random_targets(lengths, windows, span_loss_type, saliency, seed=100 + seed)
        results = []
        for criterion in (theirs, ours):
            outputs = random_outputs(lengths, layers, span_loss_type, seed=seed)
            losses = criterion(outputs, targets)
            total = training_sum(losses, weights)
            if isinstance(total, torch.Tensor) and total.requires_grad:
                total.backward()
            gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves(outputs)]
            results.append((losses, gradients))
        (wanted, wanted_gradients), (got, gradients) = results
        assert set(got) - set(wanted) == ({"loss_vtc", "loss_ctc"} if name == "tr_detr" else set())
        differences = {key: difference(got[key], wanted[key]) for key in wanted}
        assert max(differences.values()) < TOLERANCE, differences
        worst = max(worst, *differences.values())
        for theirs_grad, ours_grad in zip(wanted_gradients, gradients, strict=True):
            torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-4, atol=TOLERANCE)
    return worst


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", UPSTREAM)
def test_every_loss_is_upstreams(name, case):
    print(f"{name}, {case}: {compare(name, case):.1e}")


@pytest.mark.parametrize("name", UPSTREAM)
def test_clip_classification(name):
    print(f"{name}, ce: {compare(name, 'several windows, ragged', span_loss_type='ce'):.1e}")


@pytest.mark.parametrize("name", UPSTREAM)
@pytest.mark.parametrize("saliency", [True, False])
@pytest.mark.parametrize("layers", [1, 4])
def test_any_number_of_layers_and_saliency_labels(name, saliency, layers):
    aux = {"aux_loss": layers > 1, "dec_layers": layers}
    print(f"{compare(name, 'several windows, ragged', saliency, layers, **aux):.1e}")


@pytest.mark.parametrize("name", UPSTREAM)
def test_contrastive_alignment(name):
    worst = compare(name, "several windows, ragged", contrastive_align_loss=True, contrastive_align_loss_coef=0.02)
    print(f"{name}, contrastive_align: {worst:.1e}")


@pytest.mark.parametrize("name", ["qd_detr", "tr_detr"])
def test_highlights_alone(name):
    print(f"{name}, tvsum: {compare(name, 'several windows, ragged', use_matcher=False):.1e}")


@pytest.mark.parametrize("name", UPSTREAM)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aux_loss": False},
        {"dec_layers": 4, "span_loss_coef": 3, "giou_loss_coef": 2, "label_loss_coef": 5, "lw_saliency": 0.5},
        {"dec_layers": 3, "contrastive_align_loss": True, "contrastive_align_loss_coef": 0.02},
    ],
)
def test_weights_are_upstreams(name, options):
    ours, theirs = our_criterion(name, **options).weight_dict, upstream_criterion(name, **options).weight_dict
    added = {"loss_vtc": 1, "loss_ctc": 1} if name == "tr_detr" else {}
    assert ours == {**theirs, **added}


@pytest.mark.parametrize("span_loss_type", ["l1", "ce"])
@pytest.mark.parametrize("case", CASES)
def test_matching_is_upstreams(case, span_loss_type):
    lengths, windows = CASES[case]
    theirs = upstream_criterion("qd_detr", span_loss_type=span_loss_type).matcher
    ours = our_criterion("qd_detr", span_loss_type=span_loss_type).matcher
    for seed in range(10):
        outputs = random_outputs(lengths, 1, span_loss_type, seed=seed)
        targets = random_targets(lengths, windows, span_loss_type, seed=100 + seed)
        wanted, got = theirs(outputs, targets), ours(outputs, targets)
        assert len(got) == len(lengths)
        for (i, j), (ours_i, ours_j) in zip(wanted, got, strict=True):
            assert torch.equal(i, ours_i) and torch.equal(j, ours_j)
            assert ours_i.dtype == ours_j.dtype == torch.int64 and ours_i.device.type == "cpu"


@pytest.mark.parametrize("span_loss_type", ["l1", "ce"])
def test_ties_fall_as_upstreams(span_loss_type):
    """All predictions alike, and windows twice: only the solver's order is left to decide."""
    lengths, windows = (20, 20), (4, 6)
    theirs = upstream_criterion("moment_detr", span_loss_type=span_loss_type).matcher
    ours = our_criterion("moment_detr", span_loss_type=span_loss_type).matcher
    outputs = random_outputs(lengths, 1, span_loss_type)
    outputs = {key: outputs[key][:, :1].repeat(1, 10, 1) for key in ("pred_logits", "pred_spans")}
    targets = random_targets(lengths, (2, 3), span_loss_type)
    targets = {"span_labels": [{"spans": entry["spans"].repeat(2, 1)} for entry in targets["span_labels"]]}
    assert [len(entry["spans"]) for entry in targets["span_labels"]] == list(windows)
    for wanted, got in zip(theirs(outputs, targets), ours(outputs, targets), strict=True):
        assert torch.equal(wanted[0], got[0]) and torch.equal(wanted[1], got[1])


def test_costs_are_the_same_numbers(monkeypatch):
    """Upstream hands the solver what ours computes for all layers at once."""
    seen = []
    theirs = upstream_criterion("moment_detr").matcher
    module = inspect.unwrap(type(theirs).forward).__globals__
    solver = module["linear_sum_assignment"]
    monkeypatch.setitem(module, "linear_sum_assignment", lambda costs: seen.append(costs.clone()) or solver(costs))
    lengths, windows = CASES["several windows, ragged"]
    outputs, targets = random_outputs(lengths, 3), random_targets(lengths, windows)
    layers = [outputs, *outputs["aux_outputs"]]
    for layer in layers:
        theirs(layer, targets)
    logits, spans = (torch.stack([layer[key] for layer in layers]) for key in ("pred_logits", "pred_spans"))
    padded = pad_sequence([entry["spans"] for entry in targets["span_labels"]], batch_first=True)
    costs = our_criterion("moment_detr").matcher.costs(logits, spans, padded)
    mine = [sample[:, :real] for layer in costs for sample, real in zip(layer, windows, strict=True)]
    worst = max((a - b).abs().max().item() for a, b in zip(seen, mine, strict=True))
    print(f"costs: {worst:.1e}")
    assert worst < 2e-6


def text_loss(module, name):
    """By its file: the folder is no package, which an import would leave a trace of."""
    path = upstream("TR-DETR") / "tr_detr" / "loss_fun" / f"{module}.py"
    return runpy.run_path(str(path))[name]()


@pytest.mark.parametrize("case", CASES)
def test_text_alignment_is_upstreams(case):
    lengths, windows = CASES[case]
    outputs, targets = random_outputs(lengths), random_targets(lengths, windows)
    losses = our_criterion("tr_detr")(outputs, targets)
    vtc = text_loss("VTCLoss", "VTCLoss")(outputs["src_txt_cls_ed"], outputs["src_vid_cls_ed"])
    ctc = text_loss("CTCLoss", "CTC_Loss")(
        outputs["src_vid_ed"],
        outputs["src_txt_ed"],
        targets["src_pos_mask"],
        outputs["video_mask"],
        targets["src_txt_mask"],
    )
    differences = [difference(losses["loss_vtc"], vtc), difference(losses["loss_ctc"], ctc)]
    print(f"vtc {differences[0]:.1e}, ctc {differences[1]:.1e}")
    assert max(differences) < TOLERANCE


def test_the_sum_is_tr_detrs_whole_loss():
    """What upstream's train.py adds by hand is in our sum."""
    lengths, windows = CASES["several windows, ragged"]
    outputs, targets = random_outputs(lengths), random_targets(lengths, windows)
    options = {"vtc_loss_coef": 0.3, "ctc_loss_coef": 0.5}
    theirs, ours = upstream_criterion("tr_detr"), our_criterion("tr_detr", **options)
    wanted = training_sum(theirs(outputs, targets), theirs.weight_dict)
    wanted = wanted + 0.3 * text_loss("VTCLoss", "VTCLoss")(outputs["src_txt_cls_ed"], outputs["src_vid_cls_ed"])
    names = ("src_vid_ed", "src_txt_ed")
    ctc = text_loss("CTCLoss", "CTC_Loss")(
        *(outputs[name] for name in names), targets["src_pos_mask"], outputs["video_mask"], targets["src_txt_mask"]
    )
    torch.testing.assert_close(training_sum(ours(outputs, targets), ours.weight_dict), wanted + 0.5 * ctc)
