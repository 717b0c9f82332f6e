"""wrap_criterion on every criterion of the family: its authors', lighthouse's copies, and ours."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F

from hero_plugin import HeroConfig, clip_labels, hero_losses, wrap_criterion, wrap_model
from hero_plugin.adapters.detr.config import DETRConfig, MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from hero_plugin.adapters.moment_detr import build_moment_detr
from hero_plugin.adapters.qd_detr import build_qd_detr
from hero_plugin.adapters.tr_detr import build_tr_detr
from tests.adapters import authors
from tests.adapters.criterion_cases import leaves, random_outputs, random_targets, training_sum
from tests.adapters.detr_bases import by_name
from tests.core.bases import shake

LENGTHS, WINDOWS = (20, 9, 14), (3, 1, 2)
OURS = {
    "ours.moment_detr": (build_moment_detr, MomentDETRConfig, {}),
    "ours.qd_detr": (build_qd_detr, QDDETRConfig, {"ranks": True, "negative_pairs": True}),
    "ours.tr_detr": (build_tr_detr, TRDETRConfig, {"ranks": True, "label_loss": "focal", "text_alignment": True}),
}
COPIES = tuple(f"lighthouse.{name}" for name in authors.CLASSES)
ALL = (*authors.UPSTREAM, *COPIES, *OURS)
SMALL = {"dim_feedforward": 32, "enc_layers": 1}


@functools.cache
def bare_criterion(name, span_loss_type="l1"):
    if name in OURS:
        config = DETRConfig(text_dim=4, video_dim=4, span_loss_type=span_loss_type)
        return SetCriterion(config, **OURS[name][2])
    return authors.build(name, hidden_dim=32, span_loss_type=span_loss_type, **SMALL)[1]


def criterion(name, span_loss_type="l1"):
    """A fresh ``weight_dict`` each time: wrapping adds to it."""
    made = bare_criterion(name, span_loss_type)
    made.weight_dict = {key: weight for key, weight in made.weight_dict.items() if key not in HeroConfig().loss_weights}
    return made


def hero_outputs(span_loss_type="l1", seed=0):
    """Outputs as a wrapped model leaves them while training."""
    outputs = random_outputs(LENGTHS, 2, span_loss_type, seed)
    random = torch.Generator().manual_seed(seed)
    mask = outputs["video_mask"]
    logits = {key: torch.randn(mask.shape, generator=random) for key in ("relevance", "masked_relevance")}
    hero = {**{key: value.requires_grad_() for key, value in logits.items()}, "video_mask": mask}
    return outputs, {**outputs, "hero": hero}


@pytest.mark.parametrize("span_loss_type", ["l1", "ce"])
@by_name(ALL)
def test_the_sum_has_heros_losses_beside_the_criterions(name, span_loss_type):
    """Other losses and their gradients stay; HERO's reach relevance with their weights; several windows are a union."""
    bare, targets = criterion(name, span_loss_type), random_targets(LENGTHS, WINDOWS, span_loss_type)
    outputs, wrapped_outputs = hero_outputs(span_loss_type)
    plain = bare(outputs, targets)
    before = torch.autograd.grad(training_sum(plain, bare.weight_dict), leaves(outputs), allow_unused=True)

    wrapped = wrap_criterion(bare)
    losses = wrapped(wrapped_outputs, targets)
    assert set(losses) - set(plain) == {"loss_relevance", "loss_consistency"}
    for key, loss in plain.items():
        assert loss == losses[key], key
    total, hero = training_sum(losses, wrapped.weight_dict), wrapped_outputs["hero"]
    total.backward(retain_graph=True)
    for leaf, gradient in zip(leaves(outputs), before, strict=True):
        assert (leaf.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(leaf.grad, gradient)

    inside = torch.zeros_like(hero["video_mask"])
    for row, entry, clips in zip(inside, targets["span_labels"], LENGTHS, strict=True):
        for window in entry["spans"]:
            one = clip_labels([window.unsqueeze(0)], torch.ones(1, clips), span_loss_type)[0]
            row[:clips] = torch.maximum(row[:clips], one)
    assert 0 < inside.sum() < hero["video_mask"].sum()
    expected = hero_losses(hero["relevance"], hero["masked_relevance"], inside, hero["video_mask"])
    assert all(torch.equal(losses[key], loss) for key, loss in expected.items())
    relevance = [hero["relevance"], hero["masked_relevance"]]
    wanted = torch.autograd.grad(0.1 * expected["loss_relevance"] + 0.1 * expected["loss_consistency"], relevance)
    for leaf, gradient in zip(relevance, wanted, strict=True):
        torch.testing.assert_close(leaf.grad, gradient)
        assert gradient.any()


@by_name(ALL)
def test_matchers_see_nothing_of_hero(name):
    """A training script may also match by hand."""
    outputs, wrapped_outputs = hero_outputs()
    targets, matcher = random_targets(LENGTHS, WINDOWS), wrap_criterion(criterion(name)).matcher
    for plain, wrapped in zip(matcher(outputs, targets), matcher(wrapped_outputs, targets), strict=True):
        assert torch.equal(plain[0], wrapped[0]) and torch.equal(plain[1], wrapped[1])


@by_name(ALL)
def test_clip_indices_are_labelled_inclusively(name):
    _, outputs = hero_outputs("ce")
    targets = random_targets(LENGTHS, (1, 1, 1), "ce")
    for entry, window in zip(targets["span_labels"], [[2, 4], [0, 0], [13, 13]], strict=True):
        entry["spans"] = torch.tensor([window])
    hero, labels = outputs["hero"], torch.zeros_like(outputs["hero"]["video_mask"])
    labels[0, 2:5] = labels[1, 0] = labels[2, 13] = 1
    losses = wrap_criterion(criterion(name, "ce"))(outputs, targets)
    expected = hero_losses(hero["relevance"], hero["masked_relevance"], labels, hero["video_mask"])
    assert torch.equal(losses["loss_relevance"], expected["loss_relevance"])


@by_name(["qd_detr", "tr_detr", "ours.qd_detr", "ours.tr_detr"])
def test_highlights_alone(name):
    """Upstream's TVSum targets carry a window (0, 0) that its criterion does not read."""
    if name in OURS:
        config = DETRConfig(text_dim=4, video_dim=4)
        bare = SetCriterion(config, use_matcher=False, **OURS[name][2])
    else:
        bare = authors.build(name, hidden_dim=32, dset_name="tvsum", **SMALL)[1]
    _, outputs = hero_outputs()
    targets = random_targets(LENGTHS, WINDOWS)
    targets["span_labels"] = [{"spans": torch.zeros(1, 2)} for _ in LENGTHS]
    losses = wrap_criterion(bare)(outputs, targets)
    hero = outputs["hero"]
    assert "loss_relevance" not in losses
    padding = hero["video_mask"] == 0
    before = hero["relevance"].masked_fill(padding, -1e9).log_softmax(-1)
    after = hero["masked_relevance"].masked_fill(padding, -1e9).log_softmax(-1)
    expected = F.kl_div(after, before, log_target=True, reduction="batchmean")
    torch.testing.assert_close(losses["loss_consistency"], expected)


@by_name(name for name in ALL if name.startswith("ours"))
def test_a_batch_without_windows_trains(name):
    """All clips are irrelevant then; only our criterion takes such a batch."""
    _, outputs = hero_outputs()
    wrapped = wrap_criterion(criterion(name))
    losses = wrapped(outputs, random_targets(LENGTHS, (0, 0, 0)))
    hero = outputs["hero"]
    nowhere = torch.zeros_like(hero["relevance"])
    expected = hero_losses(hero["relevance"], hero["masked_relevance"], nowhere, hero["video_mask"])
    assert torch.equal(losses["loss_relevance"], expected["loss_relevance"])
    assert training_sum(losses, wrapped.weight_dict).isfinite()


def built(name):
    """Model and criterion as a user gets them."""
    if name not in OURS:
        return authors.build(name, **SMALL)
    build, config, _ = OURS[name]
    return build(config(text_dim=12, video_dim=18, hidden_dim=32, **SMALL))


@pytest.mark.slow
@by_name(ALL)
def test_two_lines_train_hero(name):
    """The training loop of every one of these codebases, with the model and the criterion wrapped."""
    torch.manual_seed(0)
    base, bare = built(name)
    model, wrapped = wrap_model(base, levels=2, num_heads=4).train(), wrap_criterion(bare)
    shake(model.hero, 0.1)  # its branches start at zero, and would first move by less than float32 can tell
    targets = random_targets(LENGTHS, WINDOWS)
    mask = random_outputs(LENGTHS)["video_mask"]
    inputs = {
        "src_txt": torch.randn(len(LENGTHS), 6, 12),
        "src_txt_mask": targets["src_txt_mask"],
        "src_vid": torch.randn(*mask.shape, 18),
        "src_vid_mask": mask,
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    start = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    for _ in range(5):
        outputs = model(**inputs)
        loss_dict = wrapped(outputs, targets)
        weight_dict = wrapped.weight_dict
        loss = sum(loss_dict[k] * weight_dict[k] for k in loss_dict if k in weight_dict)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        assert loss.isfinite()
    unused = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    assert all("txt_position_embed" in key for key in unused)  # words have no positions by default
    still = {key for key, parameter in model.named_parameters() if torch.equal(parameter, start[key])} - unused
    print(f"{name}: {len(still)} of {len(start)} parameters did not move")
    assert not {key for key in still if key.startswith("hero.")}
    # A bias of attention's keys has no effect, nor what the decoder makes of queries that start at zero.
    assert len(still) < 0.1 * len(start)
