"""The reference EMB computes what upstream's does."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_plugin.adapters.emb import EMB, elastic_threshold
from tests.adapters import authors
from tests.adapters.emb_cases import Case, small_config, total, word_vectors

pytestmark = pytest.mark.upstream

TOLERANCE = 1e-5

SIZES = {
    "usual": ((4, 64, 8), {}),
    "published": ((16, 128, 12), {"dim": 128}),
    "ragged cells": ((3, 50, 5), {}),
    "batch of one": ((1, 128, 12), {}),
    "one clip, one word": ((1, 1, 1), {}),
    "one clip": ((2, 1, 3), {}),
    "one word": ((5, 13, 1), {}),
    "two layers": ((3, 60, 6), {"num_layers": 2}),
    "fine map": ((3, 60, 6), {"downscale": 4}),
    "short proposals": ((3, 60, 6), {"windows": (4,)}),
    "two levels": ((3, 60, 6), {"windows": (2, 3)}),
    "three levels": ((3, 60, 6), {"windows": (3, 3, 5), "downscale": 2}),
    "wide kernel": ((3, 60, 6), {"kernel_size": 5}),
}


def pair(fields, dtype=torch.float32):
    """Upstream's model and the reference with its weights."""
    config = small_config(**fields)
    torch.manual_seed(0)
    theirs = authors.load_emb().EMB(config, word_vectors().numpy())
    ours = EMB(config, word_vectors())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.to(dtype), ours.to(dtype)


def largest(first, second):
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(first, second, strict=True))


def assert_equal_models(size, fields, train, seed=0):
    theirs, ours = pair(fields)
    case = Case.random(*size, seed=seed)
    wanted = theirs.train(train)(*case.inputs())
    got = ours.train(train)(*case.inputs())
    assert [tuple(x.shape) for x in got] == [tuple(x.shape) for x in wanted]
    assert [x.dtype for x in got] == [x.dtype for x in wanted]
    outputs = largest(got, wanted)
    losses = max(largest(case.losses(ours, got, t), case.losses(theirs, wanted, t)) for t in (0.5, 0.9, 1.0))
    print(f"difference of outputs {outputs:.1e}, of losses {losses:.1e}")  # quoted by docs/concepts/bases.md: pytest -s
    assert outputs < TOLERANCE
    assert losses < TOLERANCE
    assert largest(ours.predictor.extract_index(*got[1:3]), theirs.predictor.extract_index(*wanted[1:3])) == 0
    elastic = slice(1, 6)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.extract_index(*got[elastic]), theirs.extract_index(*wanted[elastic]), strict=True)
    )


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", SIZES)
def test_outputs_and_losses_are_upstreams(name, train):
    size, fields = SIZES[name]
    assert_equal_models(size, fields, train)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 4), clips=st.integers(1, 90), words=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_outputs_and_losses_are_upstreams_at_any_size(batch, clips, words, seed):
    assert_equal_models((batch, clips, words), {}, train=True, seed=seed)


@pytest.mark.parametrize(
    ("size", "fields"),
    [((4, 64, 8), {}), ((2, 128, 12), {"dim": 64}), ((3, 48, 1), {"num_layers": 2}), ((1, 8, 1), {})],
)
def test_gradients_are_upstreams(size, fields):
    """Lengths fill their cells here: clips of padding come out alike, and among equals rounding decides."""
    case = Case.random(*size, multiple=8)
    gradients = []
    theirs, ours = pair(fields, torch.float64)
    for model in (theirs, ours):
        outputs = model.train()(*case.inputs(torch.float64))
        # Both with our losses: upstream's take no float64.
        total(case.losses(ours, outputs)).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    wanted, got = gradients
    assert set(got) == set(wanted)
    worst = {name: (got[name] - wanted[name]).abs().max().item() for name in wanted}
    print(f"difference of gradients in float64 {max(worst.values()):.1e}")
    assert max(worst.values()) < 1e-6, max(worst, key=worst.get)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_close_at_ragged_lengths(seed):
    """In float64: among equal clips of padding rounding decides, and in float32 differently on each processor."""
    case = Case.random(6, 61, 7, seed=seed)
    gradients = []
    theirs, ours = pair({}, torch.float64)
    for model in (theirs, ours):
        outputs = model.train()(*case.inputs(torch.float64))
        # Both with our losses: upstream's take no float64.
        total(case.losses(ours, outputs)).backward()
        gradients.append(
            torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.grad is not None])
        )
    wanted, got = gradients
    print(f"relative difference of gradients at ragged lengths {(got - wanted).norm() / wanted.norm():.1e}")
    assert (got - wanted).norm() < 1e-3 * wanted.norm()


def test_the_encoders_blocks_answer_upstreams_calls():
    theirs, ours = pair({})
    case = Case.random(3, 40, 6)
    results = []
    for model in (theirs.eval(), ours.eval()):
        word_ids, char_ids, video, v_mask, q_mask = case.inputs()
        clips = model.position(model.video_affine(video))
        words = model.position(model.embedding_net(word_ids, char_ids))
        clips = model.encoder.f2f(clips.clone(), v_mask)
        words = model.encoder.w2w(words, q_mask)
        clips, words = (
            model.encoder.f2w(words, clips.clone(), q_mask, v_mask),
            model.encoder.w2f(clips, words, v_mask, q_mask),
        )
        clips, words = model.encoder.v2v(clips.clone(), v_mask), model.encoder.vq2q(words, q_mask)
        fused = model.fuser1(vfeats=clips, qfeats=words, vmask=v_mask, qmask=q_mask)
        results.append(model.highlight_layer.conv1d(fused).squeeze(-1) * v_mask)
    assert largest(results[1:], results[:1]) < TOLERANCE


def test_the_threshold_is_upstreams():
    theirs = authors.load_emb().threshold.SigmoidThreshold(start=0, end=20, low=0.5)
    for epoch in range(20):
        assert elastic_threshold(epoch, 20) == pytest.approx(theirs(epoch, reverse=True), abs=1e-12)


def test_the_reference_leaves_its_inputs_alone():
    _, ours = pair({})
    inputs = Case.random(3, 30, 5).inputs()
    before = copy.deepcopy(inputs)
    total(Case.random(3, 30, 5).losses(ours, ours(*inputs))).backward()
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_loading_a_clone_leaves_no_trace():
    before, path = set(sys.modules), list(sys.path)
    authors.load_emb_from.cache_clear()
    authors.load_emb()
    assert sys.path == path
    left = {name.split(".")[0] for name in set(sys.modules) - before}
    assert not left & {"model", "util", "transformers"}
