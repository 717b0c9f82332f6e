"""The DETR family's criterion on its own terms: what upstream's does not do, and how it does the rest."""

from __future__ import annotations

import copy
import math
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from hero_plugin.adapters.detr import matcher
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.criterion import (
    SetCriterion,
    negative_pair_loss,
    rank_contrastive_loss,
    sigmoid_focal_loss,
)
from hero_plugin.adapters.detr.matcher import HungarianMatcher
from tests.adapters.authors import sigmoid_focal_loss as published_focal_loss
from tests.adapters.criterion_cases import leaves, random_outputs, random_targets, training_sum
from tests.core.bases import few, quick
from tests.old_torch import fake_tensors

KINDS = {
    "moment_detr": {},
    "qd_detr": {"ranks": True, "negative_pairs": True},
    "tr_detr": {"ranks": True, "label_loss": "focal", "text_alignment": True},
}
CONFIG = DETRConfig(text_dim=4, video_dim=4)
LENGTHS = (9, 4, 7)


def criterion(name="moment_detr", config=None, **options):
    return SetCriterion(replace(CONFIG, **(config or {})), **KINDS[name], **options)


def finite(losses, weights, outputs):
    """The weighted sum and all its gradients are numbers; returns the sum."""
    total = training_sum(losses, weights)
    total.backward()
    assert math.isfinite(total.item())
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves(outputs))
    return total


@pytest.mark.parametrize("span_loss_type", ["l1", "ce"])
@pytest.mark.parametrize("windows", [(0, 2, 1), (0, 0, 0)])
@pytest.mark.parametrize("name", KINDS)
def test_queries_without_a_window(name, windows, span_loss_type):
    config = {"span_loss_type": span_loss_type, "contrastive_align_loss": True, "contrastive_align_loss_coef": 1}
    ours = criterion(name, config)
    outputs = random_outputs(LENGTHS, 3, span_loss_type)
    losses = ours(outputs, random_targets(LENGTHS, windows, span_loss_type))
    assert all(loss.isfinite() for loss in losses.values())
    if not any(windows):
        pairs = ("loss_span", "loss_giou", "loss_contrastive_align", "class_error")
        assert all(losses[name] == 0 for name in pairs)
    assert losses["loss_label"] > 0
    finite(losses, ours.weight_dict, outputs)


def test_a_query_without_a_window_is_background():
    """Pair losses are those of the rest of the batch."""
    ours = criterion(config={"contrastive_align_loss": True, "contrastive_align_loss_coef": 1})
    outputs, targets = random_outputs(LENGTHS), random_targets(LENGTHS, (2, 0, 1), saliency=False)
    losses = ours(outputs, targets)
    rest = {key: value[[0, 2]] for key, value in outputs.items() if key != "aux_outputs"}
    rest_targets = {"span_labels": [targets["span_labels"][0], targets["span_labels"][2]]}
    alone = ours(rest, rest_targets)
    for name in ("loss_span", "loss_giou", "class_error", "loss_contrastive_align"):
        torch.testing.assert_close(losses[name], alone[name])
    background = -0.1 * outputs["pred_logits"][1].log_softmax(-1)[:, 1].mean()
    torch.testing.assert_close(losses["loss_label"], (2 * alone["loss_label"] + background) / 3)


def test_no_windows_as_an_empty_tensor():
    targets = {"span_labels": [{"spans": torch.zeros(0)}, {"spans": torch.tensor([[0.5, 0.2]])}]}
    outputs = random_outputs((5, 5))
    assert criterion()(outputs, targets)["loss_span"].isfinite()


@pytest.mark.parametrize("windows", [(1, 1, 1), (3, 0, 12)])
@pytest.mark.parametrize("span_loss_type", ["l1", "ce"])
def test_layers_together_are_layers_apart(windows, span_loss_type):
    ours = criterion(config={"span_loss_type": span_loss_type, "contrastive_align_loss": True})
    outputs, targets = random_outputs(LENGTHS, 4, span_loss_type), random_targets(LENGTHS, windows, span_loss_type)
    together = ours(outputs, targets)
    for place, aux in enumerate(outputs["aux_outputs"]):
        apart = ours({**outputs, **aux, "aux_outputs": []}, targets)
        for name in ("loss_span", "loss_giou", "loss_label", "class_error", "loss_contrastive_align"):
            torch.testing.assert_close(together[f"{name}_{place}"], apart[name])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 1000))
@quick
def test_no_assignment_costs_less(windows, predictions, seed):
    """Against every assignment there is."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(windows), predictions, 2, generator=random)
    spans = torch.rand(len(windows), predictions, 2, generator=random)
    targets = random_targets((9,) * len(windows), tuple(min(4, count) for count in windows), seed=seed)
    matcher = HungarianMatcher(CONFIG)
    found = matcher({"pred_logits": logits, "pred_spans": spans}, targets)
    for sample, (rows, columns) in enumerate(found):
        wanted = targets["span_labels"][sample]["spans"]
        costs = matcher.costs(logits[sample], spans[sample], wanted)
        assert len(rows) == len(columns) == min(predictions, len(wanted))
        assert rows.unique().tolist() == rows.tolist() and len(columns.unique()) == len(columns)
        if len(wanted) == 0:
            continue
        every = product(range(predictions), repeat=len(wanted)) if predictions >= len(wanted) else []
        sums = [costs[list(rows), range(len(wanted))].sum() for rows in every if len(set(rows)) == len(rows)]
        assert all(costs[rows, columns].sum() <= other + 1e-4 for other in sums)


@fake_tensors
@pytest.mark.parametrize("span_loss_type", ["l1", "ce"])
@pytest.mark.parametrize("name", KINDS)
def test_the_device_is_asked_once(name, span_loss_type, monkeypatch):
    """On fake tensors, which refuse whatever would need a value, and to mix devices.

    "meta" stands in for an accelerator: it takes part in every operation as one would.
    """
    ours = criterion(name, {"span_loss_type": span_loss_type, "contrastive_align_loss": True})
    windows = (2, 0, 12)
    outputs = random_outputs(LENGTHS, 3, span_loss_type)
    targets = random_targets(LENGTHS, windows, span_loss_type)
    moves, to_cpu = [], torch.Tensor.cpu

    def solved(costs, counts):
        assert costs.device.type == "cpu" and costs.shape == (3, 3, 10, 12) and tuple(counts) == windows
        return torch.zeros(3, 3, 12, dtype=torch.long)

    monkeypatch.setattr(matcher, "assign_layers", solved)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # knows no "meta"
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moves.append(tensor.shape) or to_cpu(tensor))

    def fake(value):
        if isinstance(value, torch.Tensor):
            return torch.empty(value.shape, dtype=value.dtype, device="meta", requires_grad=value.requires_grad)
        if isinstance(value, dict):
            return {key: fake(item) for key, item in value.items()}
        return [fake(item) for item in value]

    with FakeTensorMode():
        losses = ours(fake(outputs), fake(targets))
        training_sum(losses, ours.weight_dict).backward()
    assert moves == [(3, 3, 10, 12)]
    assert all(loss.device.type == "meta" and loss.shape == () for loss in losses.values())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(name, dtype):
    """A model under autocast returns halves, and training loops call the criterion under autocast, too."""
    ours, targets = criterion(name), random_targets(LENGTHS, (2, 1, 3))
    outputs = random_outputs(LENGTHS)
    halves = {key: value.detach().to(dtype) for key, value in outputs.items() if key != "aux_outputs"}
    halves["pred_spans"].requires_grad_()
    widened = {key: value.detach().float() for key, value in halves.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = ours(halves, targets)
    expected = ours(widened, targets)
    for key, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[key])
    training_sum(losses, ours.weight_dict).backward()
    assert halves["pred_spans"].grad.dtype == dtype


@pytest.mark.parametrize("name", KINDS)
def test_float64(name):
    ours = criterion(name, {"contrastive_align_loss": True})
    outputs = random_outputs(LENGTHS, dtype=torch.float64)
    losses = ours(outputs, random_targets(LENGTHS, (2, 1, 3), dtype=torch.float64))
    assert all(loss.dtype == torch.float64 for loss in losses.values())
    finite(losses, ours.weight_dict, outputs)


@pytest.mark.parametrize("name", KINDS)
def test_what_stands_in_padding_does_not_matter(name):
    ours, targets = criterion(name), random_targets(LENGTHS, (2, 1, 3))
    outputs = random_outputs(LENGTHS)
    noisy, padding = copy.deepcopy(outputs), outputs["video_mask"] == 0
    noisy["saliency_scores"].data[padding] = 1e4
    noisy["saliency_scores_neg"].data[padding] = 1e4
    noisy["src_vid_ed"].data[padding] = 7
    noisy["src_txt_ed"].data[targets["src_txt_mask"] == 0] = 7
    losses, same = ours(outputs, targets), ours(noisy, targets)
    assert all(torch.equal(losses[key], same[key]) for key in losses)
    finite(same, ours.weight_dict, noisy)


def looped_rank_loss(scores, labels, mask):
    """QD-DETR's loop over ranks, one video at a time, in float64."""
    total = 0.0
    for row, label, real in zip(scores.double(), labels, mask.bool(), strict=True):
        logits = torch.where(label > 100, -1e3, torch.where(real, row, -1e3) / 0.5)
        logits = logits - logits.max()
        log_probability = logits - (logits.exp().sum() + 1e-6).log()
        for rank in range(1, 12):
            chosen = label >= rank
            if chosen.any():
                total -= log_probability[chosen & real].sum() / (chosen.sum() + 1e-6)
    return total / len(scores) / 12


@given(st.integers(0, 1000), st.sampled_from([1.0, 30.0, 1000.0]), st.sampled_from([2, 13, 140]))
@quick
def test_ranks_at_once_are_the_loop(seed, scale, highest):
    """Labels above 100, labels in padding, large scores, and videos that no rank finds a clip in."""
    random = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(4, 8, generator=random)
    labels = torch.randint(0, highest, (4, 8), generator=random).float()
    labels[seed % 4] = 0
    mask = (torch.arange(8) < torch.tensor([[8], [5], [1], [3]])).float()
    loss = rank_contrastive_loss(scores, labels, mask)
    torch.testing.assert_close(loss.double(), looped_rank_loss(scores, labels, mask), rtol=1e-4, atol=1e-5)


def test_ranks_without_any_label_cost_nothing():
    assert rank_contrastive_loss(torch.randn(2, 5), torch.zeros(2, 5), torch.ones(2, 5)) == 0


def test_a_confident_wrong_score_is_no_infinity():
    """-log(1 - sigmoid(x)) as upstream writes it is infinite in float32 from about 17."""
    scores = torch.tensor([[-30.0, 0.5, 20.0, 300.0]], requires_grad=True)
    loss = negative_pair_loss(scores, torch.ones(1, 4))
    assert torch.isinf(-torch.log(1 - torch.sigmoid(scores))).any()
    torch.testing.assert_close(loss.item(), math.log1p(math.exp(0.5)) + 320.0)
    loss.backward()
    assert scores.grad.isfinite().all()
    moderate = torch.linspace(-8, 8, 20, dtype=torch.float64).unsqueeze(0)
    published = -torch.log(1 - torch.sigmoid(moderate)).sum()
    torch.testing.assert_close(negative_pair_loss(moderate, torch.ones(1, 20)), published)


@given(st.integers(0, 1000), st.sampled_from([0.1, 5.0, 60.0]))
@few
def test_focal_loss_is_its_definition(seed, scale):
    random = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(3, 10, 2, generator=random)).requires_grad_()
    foreground = torch.rand(3, 10, generator=random) > 0.5
    targets = torch.stack([foreground, ~foreground], -1).float()
    wanted = published_focal_loss(logits, targets, alpha=0.25, gamma=2.0)
    loss = sigmoid_focal_loss(logits, targets)
    torch.testing.assert_close(loss, wanted)
    assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()


def test_matching_without_scipy_says_what_to_install():
    outputs, targets = random_outputs(LENGTHS), random_targets(LENGTHS, (1, 1, 1))
    with (
        mock.patch.dict(sys.modules, {"scipy": None, "scipy.optimize": None}),
        pytest.raises(ImportError, match=r'pip install "hero-plugin\[train\]"'),
    ):
        criterion()(outputs, targets)


def test_a_diverged_model_is_told():
    outputs = random_outputs(LENGTHS)
    outputs["pred_spans"].data[1, 3] = torch.nan
    with pytest.raises(ValueError, match="matching costs are not finite"):
        criterion()(outputs, random_targets(LENGTHS, (1, 1, 1)))


def test_highlights_alone_need_no_windows_and_no_scipy():
    ours = criterion("qd_detr", use_matcher=False)
    targets = random_targets(LENGTHS, (1, 1, 1))
    del targets["span_labels"]
    with mock.patch.dict(sys.modules, {"scipy": None, "scipy.optimize": None}):
        assert set(ours(random_outputs(LENGTHS), targets)) == {"loss_saliency"}
    with pytest.raises(KeyError, match=r"no span_labels.*use_matcher=False"):
        criterion("qd_detr")(random_outputs(LENGTHS), targets)


def test_text_alignment_where_there_is_something_to_align():
    ours, targets = criterion("tr_detr"), random_targets(LENGTHS, (1, 1, 1))
    without_masks = {key: value for key, value in targets.items() if not key.startswith("src_")}
    outputs = random_outputs(LENGTHS)
    bare = {key: value for key, value in outputs.items() if not key.startswith("src_")}
    both = {"loss_vtc", "loss_ctc"}
    assert both & set(ours(outputs, targets)) == both
    assert both & set(ours(outputs, without_masks)) == {"loss_vtc"}
    assert both & set(ours(bare, targets)) == set()
    del targets["src_txt_mask"]
    with pytest.raises(KeyError, match="no src_txt_mask, which loss_ctc needs; they have span_labels, src_pos_mask"):
        ours(outputs, targets)


def test_a_query_of_padding_alone_aligns_with_nothing():
    ours, targets, outputs = criterion("tr_detr"), random_targets(LENGTHS, (1, 1, 1)), random_outputs(LENGTHS)
    targets["src_txt_mask"][1] = 0
    finite(ours(outputs, targets), ours.weight_dict, outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"saliency_all_labels": None}, "no saliency_all_labels, which the saliency loss needs"),
        ({"saliency_all_labels": torch.zeros(3, 8)}, r"saliency_all_labels must be \(B, T\)=\(3, 9\), got \(3, 8\)"),
        ({"src_pos_mask": torch.zeros(3, 10)}, r"src_pos_mask must be \(B, T\)=\(3, 9\), got \(3, 10\)"),
        ({"src_txt_mask": torch.zeros(3, 4)}, r"src_txt_mask must be \(B, L\)=\(3, 6\), got \(3, 4\)"),
        ({"span_labels": []}, "one entry for each of 3 samples, got 0"),
    ],
)
def test_targets_that_do_not_fit(change, message):
    targets = {**random_targets(LENGTHS, (1, 1, 1)), **change}
    targets = {key: value for key, value in targets.items() if value is not None}
    with pytest.raises((KeyError, ValueError), match=message):
        criterion("tr_detr")(random_outputs(LENGTHS), targets)


def test_options_that_do_not_fit():
    with pytest.raises(ValueError, match="all 0"):
        HungarianMatcher(replace(CONFIG, set_cost_class=0, set_cost_span=0, set_cost_giou=0))
    with pytest.raises(ValueError, match="label_loss must be one of 'cross_entropy', 'focal', got 'nll'"):
        SetCriterion(CONFIG, label_loss="nll")
    with pytest.raises(ValueError, match="negative_pairs=True needs ranks=True"):
        SetCriterion(CONFIG, negative_pairs=True)


def test_the_criterion_leaves_its_inputs_alone():
    ours, outputs, targets = criterion("qd_detr"), random_outputs(LENGTHS), random_targets(LENGTHS, (2, 1, 3))
    before, keys = copy.deepcopy((outputs, targets)), list(outputs)
    training_sum(ours(outputs, targets), ours.weight_dict).backward()
    assert list(outputs) == keys
    for tensor, same in zip(leaves(outputs), leaves(before[0]), strict=True):
        assert torch.equal(tensor, same)
    assert torch.equal(targets["saliency_all_labels"], before[1]["saliency_all_labels"])


def test_nothing_of_the_criterion_is_in_a_checkpoint():
    assert list(criterion("tr_detr").state_dict()) == [] and list(criterion("tr_detr").parameters()) == []
