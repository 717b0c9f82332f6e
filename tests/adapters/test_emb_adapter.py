"""EMB's adapter, on the reference implementation and on the authors' own class."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from hero_plugin import HeroConfig, Pair, hero_losses, unwrap_model, wrap_model
from hero_plugin.adapters.emb import EMB
from hero_plugin.adapters.emb.adapter import EMBAdapter
from tests.adapters import authors
from tests.core import emb
from tests.core.bases import shake, tensors


def their_emb():
    return authors.load_emb().EMB(emb.config(), emb.vectors().numpy())


@pytest.fixture(params=["reference", pytest.param("upstream", marks=pytest.mark.upstream)])
def base(request):
    torch.manual_seed(0)
    if request.param == "reference":
        return emb.emb()
    return their_emb()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return emb.batch()


def fresh(batch):
    """Upstream writes into what it is given."""
    return [tensor.clone() for tensor in batch]


def step(model, batch, seed=2):
    torch.manual_seed(seed)
    outputs = model(*fresh(batch))
    return outputs, emb.loss(model, outputs, batch.v_mask)


@pytest.mark.parametrize("train", [True, False])
def test_off_is_bit_identical(base, batch, train):
    model = wrap_model(copy.deepcopy(base), config=HeroConfig.off()).train(train)
    results = []
    for one in (base.train(train), model):
        outputs, loss = step(one, batch)
        loss.backward()
        results.append([*tensors(outputs), loss, *(p.grad for p in one.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@torch.no_grad()
def test_ground_behind_the_seam_is_the_bases_own_forward(base, batch):
    grounder = wrap_model(base.eval()).grounder
    through = grounder.ground(grounder.embed(*fresh(batch))).outputs
    for one, other in zip(base(*fresh(batch)), through, strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_relevance_is_the_highlight_score_before_its_sigmoid(base, batch):
    grounder = wrap_model(base.eval()).grounder
    grounding, real = grounder.ground(grounder.embed(*fresh(batch))), batch.v_mask.bool()
    torch.testing.assert_close(grounding.relevance.sigmoid()[real], grounding.outputs[0][real], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sgvf", [True, False])
@torch.no_grad()
def test_folded_levels_equal_levels_run_one_by_one(base, batch, sgvf):
    model = shake(wrap_model(base, sgvf=sgvf), 0.1).eval()
    grounder, weights = model.grounder, model.level_weights()
    outputs = model(*fresh(batch))
    pair = grounder.embed(*fresh(batch))
    words = model.hero.words(pair.query, pair.query_mask)
    clips = model.hero.clips(pair.video, words, pair.query_mask)
    runs = [grounder.ground(pair.at_levels(clips[i : i + 1], words[i : i + 1])) for i in range(4)]
    for place in (0, 1, 2, 4):
        each = torch.stack([run.outputs[place] for run in runs])
        mixed = torch.tensordot(weights, each, dims=1)
        real = each[0] > -1e20
        torch.testing.assert_close(outputs[place][real], mixed[real], rtol=1e-5, atol=1e-5)
    for place in (3, 5):
        assert all(torch.equal(outputs[place], run.outputs[place]) for run in runs)
    mixed = torch.tensordot(weights, torch.stack([run.relevance for run in runs]), dims=1)
    torch.testing.assert_close(model.relevance, mixed, rtol=1e-5, atol=1e-5)


def test_without_sgvf_what_reads_clips_alone_runs_once_and_learns_as_from_all_levels(base, batch, monkeypatch):
    model, rows = shake(wrap_model(base, sgvf=False, cmtr=False), 0.1).eval(), []
    base.encoder.p2p.register_forward_hook(lambda part, args, out: rows.append(len(out)))
    found = []
    at_levels = Pair.at_levels
    for same in (True, False):
        monkeypatch.setattr(
            Pair, "at_levels", lambda pair, *both, same_video, same=same: at_levels(pair, *both, same_video and same)
        )
        model.zero_grad()
        _, loss = step(model, batch)
        loss.backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert rows == [3, 12]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()) + 1e-7)


def test_the_arguments_come_out_as_they_went_in(base, batch):
    """EMB multiplies by masks in place."""
    model = wrap_model(base).eval()
    arguments, given = fresh(batch), fresh(batch)
    with torch.no_grad():
        model(*arguments)
    assert all(torch.equal(one, other) for one, other in zip(arguments, given, strict=True))


def test_compute_loss_adds_a_tenth_of_each_hero_loss(base, batch):
    model = shake(wrap_model(base), 0.05).train()
    outputs = model(*fresh(batch))
    _, start, end, proposals, p_score, p_mask = outputs
    first, last = emb.moments(batch.v_mask).unbind(1)
    arguments = (start, end, first, last, proposals, p_score, p_mask, 0.5)
    alone, both = unwrap_model(model).compute_loss(*arguments), model.compute_loss(*arguments)
    inside = torch.zeros_like(batch.v_mask)
    for row in range(len(first)):
        inside[row, first[row] : last[row] + 1] = 1.0
    parts = hero_losses(model.relevance, model.last_forward.masked_relevance, inside, batch.v_mask)
    assert list(parts) == ["loss_relevance", "loss_consistency"]
    expected = alone + 0.1 * parts["loss_relevance"] + 0.1 * parts["loss_consistency"]
    torch.testing.assert_close(both, expected)
    assert model.hero_losses().keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in model.hero_losses().items())
    named = {"proposals": proposals, "pscores": p_score, "pmask": p_mask, "threshold": 0.5}
    assert torch.equal(model.compute_loss(start, end, first, last, **named), both)


def test_evaluation_as_upstreams_loop_writes_it(base, batch):
    model = wrap_model(base).eval()
    with torch.no_grad():
        h_score, start, end, _, p_score, p_mask = model(*fresh(batch))
        first, last = model.predictor.extract_index(start, end)
    length = batch.v_mask.sum(1)
    assert first.shape == last.shape == (3,)
    assert (first >= 0).all() and (first <= last).all() and (last < length).all()
    assert ((h_score >= 0) & (h_score <= 1)).all() and not h_score[batch.v_mask == 0].any()
    assert ((p_score >= 0) & (p_score <= 1)).all() and not p_score[p_mask == 0].any()


UNUSED = ("embedding_net.char_emb", "attention.key.conv1d.bias", "attention.key.bias")


def test_a_training_step_moves_everything_that_can_learn(base, batch):
    model = wrap_model(base).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02)
    before = {key: value.clone() for key, value in model.named_parameters()}
    for seed in range(5):
        optimizer.zero_grad()
        step(model, batch, seed)[1].backward()
        optimizer.step()
    still = {key for key, value in model.named_parameters() if torch.equal(value, before[key])}
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen <= still
    assert not {key for key in still - frozen if not any(part in key for part in UNUSED)}


@pytest.mark.upstream
def test_an_upstream_checkpoint_loads_when_wrapped(batch):
    upstream = shake(their_emb(), 0.05).eval()
    model = wrap_model(emb.emb())
    model.load_state_dict(upstream.state_dict())
    assert isinstance(unwrap_model(model), EMB)
    with torch.no_grad():
        expected, outputs = upstream(*fresh(batch)), model.eval()(*fresh(batch))
    real = batch.v_mask.bool()
    for place in range(3):
        torch.testing.assert_close(outputs[place][real], expected[place][real], rtol=1e-4, atol=1e-5)


@pytest.mark.upstream
def test_the_reference_and_upstream_train_alike_under_hero(batch):
    upstream = their_emb()
    one = shake(wrap_model(upstream, dropout=0.0), 0.05).train()
    other = wrap_model(emb.emb(), dropout=0.0).train()
    other.load_state_dict(one.state_dict())
    losses = [step(model, batch)[1] for model in (one, other)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    for loss in losses:
        loss.backward()
    for (key, a), (_, b) in zip(one.hero.named_parameters(), other.hero.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-2, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize(
    "made", [lambda base: EMBAdapter(base), functools.partial(EMBAdapter)], ids=["function", "partial"]
)
def test_whoever_makes_the_adapter_its_losses_count(made, batch):
    model = shake(wrap_model(emb.emb(), adapter=made), 0.05).train()
    _, start, end, *rest = model(*fresh(batch))
    first, last = emb.moments(batch.v_mask).unbind(1)
    assert model.compute_loss(start, end, first, last, *rest) > model.base.compute_loss(start, end, first, last, *rest)
    assert model.hero_losses().keys() == {"loss_relevance", "loss_consistency"}


def test_a_replaced_highlight_layer_counts(batch):
    model, other = wrap_model(emb.emb()).eval(), emb.emb().highlight_layer
    with torch.no_grad():
        model(*fresh(batch))
        model.base.highlight_layer = shake(other)
        expected = model.base(*fresh(batch))[0]
        torch.testing.assert_close(model(*fresh(batch))[0], expected)
