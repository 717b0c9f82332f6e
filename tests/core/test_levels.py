"""All levels ride through the base in one batch: that equals running the base once a level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hero_plugin import HeroConfig, Pair, wrap_model
from hero_plugin.levels import fold, repeat_levels, stack, unfold
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, shake, tensors, tuple_base

CASES = {
    "tuple": (tuple_base, inputs),
    "dict": (dict_base, inputs),
    "emb": (emb.emb, emb.batch),
    "moment_detr": (detr.moment_detr, detr.batch),
}


def by_hand(model, arguments):
    """The picture of the method, one level after the other."""
    grounder, hero = model.grounder, model.hero
    pair = grounder.embed(*arguments)
    words = hero.words(pair.query, pair.query_mask)
    clips = hero.clips(pair.video, words, pair.query_mask)
    runs = [grounder.ground(pair.at_levels(clips[i : i + 1], words[i : i + 1])) for i in range(len(words))]
    return runs, model.level_weights()


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_folded_equals_looped(name, levels):
    build, batch = CASES[name]
    model = shake(wrap_model(build(), levels=levels, stride=1), 0.1).eval()
    arguments = batch()
    outputs, relevance = model(*arguments), model.relevance
    runs, weights = by_hand(model, arguments)
    video_mask = model.grounder.embed(*arguments).video_mask
    for place, got in enumerate(tensors(outputs)):
        each = torch.stack([tensors(run.outputs)[place].float() for run in runs])
        mixed = (weights.view(-1, *[1] * got.ndim) * each).sum(0)
        expected = torch.where(each[0] <= -1e20, each[0], mixed)
        torch.testing.assert_close(got.float(), expected, rtol=1e-5, atol=1e-5)
    mixed = sum(weight * run.relevance for weight, run in zip(weights, runs, strict=True))
    if model.hero.ranked is not None:
        mixed = model.hero.ranked(mixed, video_mask)
    torch.testing.assert_close(relevance, mixed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_fresh_wrapper_predicts_what_the_base_predicts(name):
    """By default the levels start equal to the query and the filter starts open."""
    build, batch = CASES[name]
    base, arguments = build().eval(), batch()
    before = tensors(base(*arguments))
    for one, other in zip(before, tensors(wrap_model(base)(*arguments)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_folding_is_level_major_and_undone():
    levels = torch.randn(4, 3, 5, 2)
    folded = fold(levels)
    assert torch.equal(folded[3 * 2 + 1], levels[2, 1])
    assert torch.equal(unfold({"x": folded}, 4)["x"], levels)
    repeated = repeat_levels({"mask": levels[0], "scale": torch.tensor(7.0), "text": "x"}, 4, 3)
    assert torch.equal(unfold(repeated["mask"], 4), levels[:1].expand(4, -1, -1, -1))
    assert repeated["scale"] == 7.0 and repeated["text"] == "x"


def test_a_list_or_tuple_with_one_item_a_sample_is_repeated_too():
    assert repeat_levels(("a", "b", "c"), 2, 3, per_sample=True) == ("a", "b", "c") * 2
    names, spans = ["a", "b", "c"], [torch.zeros(k, 2) for k in (3, 1, 3)]
    targets = {"spans": spans, "clips": torch.arange(3), "pair": (torch.arange(3), None)}
    repeated = repeat_levels(
        {"vid": names, "targets": targets, "sizes": [1, 2], "epoch": 3}, 2, 3, "batch", per_sample=True
    )
    assert repeated["vid"] == names * 2 and repeated["sizes"] == [1, 2] and repeated["epoch"] == 3
    assert [len(span) for span in repeated["targets"]["spans"]] == [3, 1, 3, 3, 1, 3]
    assert repeated["targets"]["clips"].tolist() == repeated["targets"]["pair"][0].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_extra_is_of_the_batch_by_declaration(batch):
    """A list of two maps, names and a constant, at every batch size: two and three are their own sizes, too."""
    maps = [torch.rand(batch, 4), torch.rand(batch, 2, 5)]
    extra = {"maps": maps, "names": ["x"] * batch, "grid": torch.rand(3, 2), "steps": [1, 2]}
    video, query = torch.rand(batch, 7, 8), torch.rand(batch, 5, 8)
    pair = Pair(
        video,
        query,
        torch.ones(batch, 7),
        torch.ones(batch, 5),
        extra,
        per_sample=("names",),
        constant=("grid", "steps"),
    )
    folded = pair.at_levels(video.expand(2, -1, -1, -1), query.expand(2, -1, -1, -1)).extra
    assert [one.shape for one in folded["maps"]] == [(2 * batch, 4), (2 * batch, 2, 5)]
    assert torch.equal(folded["maps"][0], maps[0].repeat(2, 1)) and folded["names"] == ["x"] * 2 * batch
    assert folded["grid"] is extra["grid"] and folded["steps"] == [1, 2]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.rand(5, 2), r"extra\['more'\] \(5, 2\) must have the batch of 3 first.*`constant`"),
        ([torch.rand(2, 2)] * 3, r"extra\['more'\] \(2, 2\) must have the batch of 3 first"),
        (["a", "b", "c"], r"extra\['more'\] is a list without tensors.*`per_sample`.*`constant`"),
        ([1, 2], r"extra\['more'\] is a list without tensors"),
        (np.ones((3, 2)), r"extra\['more'\] is a ndarray: give a tensor"),
    ],
)
def test_what_may_or_may_not_be_of_the_batch_is_refused(value, said):
    video, query = torch.rand(3, 7, 8), torch.rand(3, 5, 8)
    pair = Pair(video, query, torch.ones(3, 7), torch.ones(3, 5), {"more": value})
    with pytest.raises((TypeError, ValueError), match=said):
        pair.at_levels(video.expand(2, -1, -1, -1), query.expand(2, -1, -1, -1))


@pytest.mark.parametrize("shape", [(8, 3, 16), (8,), (9, 3, 16), (12, 3, 16), (3, 12)])
def test_an_output_without_the_batch_first_is_refused(shape):
    """Memory with the words first has eight, which four divides; nine or twelve words are no other case."""
    batch = 3 if shape[0] != 12 else 2
    with pytest.raises(ValueError, match=rf"output memory \({shape[0]},.*that of 4 levels in one: {4 * batch}"):
        unfold({"memory": torch.rand(shape)}, 4, batch=batch)
    whole = unfold({"memory": torch.rand(shape)}, 4, {"memory": "whole"}, batch)
    assert whole["memory"].shape == shape


def test_an_average_over_the_batch_is_over_all_levels():
    score = torch.rand(4, 3)
    folded = unfold({"mean": fold(score).mean()}, 4, batch=3)
    stacked = stack([{"mean": level.mean()} for level in score])
    torch.testing.assert_close(folded["mean"], stacked["mean"])


def test_padded_words_that_are_read_stay_the_bases():
    """The levels have zeros there; a base with a mean over all positions must find its own."""
    model, arguments = wrap_model(tuple_base()), inputs()
    pair = replace(model.grounder.embed(*arguments), reads_padding=True)
    words = model.hero.words(pair.query, pair.query_mask)
    padding = pair.query_mask == 0
    levels = unfold(pair.at_levels(pair.video.expand(4, -1, -1, -1), words).query, 4)
    assert (words[1:, padding] == 0).all() and padding.any()
    assert torch.equal(levels[:, padding], pair.query[padding].expand(4, -1, -1))
    assert torch.equal(levels[:, ~padding], words[:, ~padding])
    zeros = replace(pair, reads_padding=False).at_levels(pair.video.expand(4, -1, -1, -1), words)
    assert torch.equal(unfold(zeros.query, 4), words)


def test_what_is_whole_is_not_unfolded():
    token, score = torch.randn(3, 2), torch.randn(8, 5)
    unfolded = unfold({"token": token, "score": score}, 4, {"token": "whole"})
    assert unfolded["token"] is token and unfolded["score"].shape == (4, 2, 5)


def test_folded_neighbours_are_different_samples():
    """A base that pairs each sample with its neighbour must not pair it with itself at another level."""
    sample = fold(torch.arange(3).view(1, 3, 1).expand(4, 3, 1)).flatten()
    assert (sample != sample.roll(1)).all()


@pytest.mark.parametrize("change", [{"sgvf": False}, {"cmtr": False}, {"levels": 1}, {"sgvf": False, "levels": 1}])
def test_each_ablation_removes_its_part_and_runs(change):
    model = wrap_model(tuple_base(), config=HeroConfig(**change))
    arguments = inputs()
    outputs = model(*arguments)
    assert [x.shape for x in tensors(outputs)] == [(3, 7)] * 4
    assert (model.hero.sgvf is None) == (change.get("sgvf") is False)
    assert (model.hero.cmtr is None) == (change.get("cmtr") is False)
    assert (model.hero.hem is None) == (change.get("levels") == 1)
    losses = model.compute_hero_losses(torch.zeros(3, 7))
    assert ("loss_consistency" in losses) == (model.hero.cmtr is not None)


def test_a_list_of_parameters_is_not_one_of_samples_in_a_batch_of_one():
    """TaskWeave returns two variances, as many as there are samples at two levels."""
    variances = [torch.zeros(1), torch.ones(1)]
    outputs = {"score": torch.randn(2, 7), "variances": variances}
    unfolded = unfold(outputs, 2, {"variances": "whole"}, batch=1)
    assert [float(one) for one in unfolded["variances"]] == [0.0, 1.0]
    assert unfolded["score"].shape == (2, 1, 7)
