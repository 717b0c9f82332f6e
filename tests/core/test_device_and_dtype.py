"""Promise 5: the plug-in lives where the base lives; evaluation draws nothing."""

from __future__ import annotations

import pytest
import torch

from hero_plugin import HeroConfig, wrap_model
from hero_plugin.losses import RankedRelevance
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, shake, tensors, total_loss, tuple_base
from tests.old_torch import HALF_TYPES

CASES = {
    "tuple": (tuple_base, inputs),
    "dict": (dict_base, inputs),
    "emb": (emb.emb, emb.batch),
    "qd_detr": (detr.qd_detr, detr.batch),
}
CONFIGS = [HeroConfig(), HeroConfig.paper(relevance="pair", projections=True)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parameters_follow_the_bases_dtype(dtype, config):
    model, batch = wrap_model(tuple_base().to(dtype), config=config), inputs(dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    outputs = model(*batch)
    assert outputs[0].dtype == dtype
    total_loss(model, outputs, batch.video_mask).backward()


def test_emb_in_double():
    model, batch = wrap_model(emb.emb().double()), emb.batch(dtype=torch.float64)
    outputs = model(*batch)
    emb.loss(model, outputs, batch.v_mask).backward()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.relevance.dtype == torch.float64


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_follow_the_bases_device(config):
    model = wrap_model(tuple_base().to("meta"), config=config)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    outputs = model(*(argument.to("meta") for argument in inputs()))
    assert all(tensor.device.type == "meta" for tensor in [*tensors(outputs), model.relevance])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("config", CONFIGS)
def test_trains_on_cuda_as_on_cpu(config):
    batch = emb.batch()
    model = shake(wrap_model(emb.emb(), config=config), 0.1).eval()
    expected = tensors(model(*batch))
    wrapped = wrap_model(model.base.cuda(), config=config).eval()
    wrapped.load_state_dict(model.state_dict())
    outputs = wrapped(*(argument.cuda() for argument in batch))
    for one, other in zip(expected, tensors(outputs), strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-3, atol=1e-3)
    wrapped.train()
    emb.loss(wrapped, wrapped(*(argument.cuda() for argument in batch)), batch.v_mask.cuda()).backward()


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_eval_is_deterministic_and_draws_nothing(name, config, monkeypatch):
    build, make = CASES[name]
    model, batch = shake(wrap_model(build(), config=config), 0.1).eval(), make()
    monkeypatch.setattr(model.hero.cmtr, "draw", None)
    state = torch.get_rng_state()
    first = [*tensors(model(*batch)), model.relevance]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    second = [*tensors(model(*batch)), model.relevance]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_training_draws_new_masks_every_time():
    model, batch = shake(wrap_model(tuple_base(), dropout=0.0)).train(), inputs()
    drawn = []
    for _ in range(2):
        model(*batch)
        drawn.append(model.compute_hero_losses(torch.zeros(3, 7))["loss_consistency"])
    assert drawn[0] > 0 and drawn[0] != drawn[1]


class BehindABackbone(torch.nn.Module):
    """A fuser that comes with a frozen backbone in half precision."""

    def __init__(self, fuser):
        super().__init__()
        self.backbone = torch.nn.Linear(1, 1).half().requires_grad_(False)
        self.fuser = fuser

    def forward(self, *pair):
        return self.fuser(*pair)


def test_the_dtype_is_that_of_what_learns():
    base, batch = tuple_base(), inputs()
    base.fuser = BehindABackbone(base.fuser)
    assert next(base.parameters()).dtype == torch.float16
    model = wrap_model(base)
    assert {parameter.dtype for parameter in model.hero.parameters()} == {torch.float32}
    total_loss(model, model(*batch), batch.video_mask).backward()


def test_hero_has_no_buffers_of_its_own():
    """Parallel training broadcasts them, averaged models average them, and both refuse what is on another device."""
    base = tuple_base()
    assert len(list(wrap_model(base).buffers())) == len(list(base.buffers()))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_default_device_plays_no_part(config):
    """HERO lives where the base lives, with the values that a seed gives it anywhere."""
    base, wrapped = tuple_base(), []
    for default in ("cpu", "meta"):
        torch.manual_seed(1)
        with torch.device(default):
            wrapped.append(wrap_model(base, config=config))
    one, other = (model.state_dict() for model in wrapped)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert {tensor.device.type for tensor in [*wrapped[1].parameters(), *wrapped[1].buffers()]} == {"cpu"}


STARTS = [*CONFIGS, HeroConfig(levels=2, identity_start=False, normalize=False), HeroConfig(levels=1, projections=True)]


@pytest.mark.parametrize("config", STARTS)
def test_a_model_made_on_meta_starts_as_any(config):
    """By ``reset_parameters`` of every module, from the outside in, as FSDP and Lightning call it."""
    build = detr.qd_detr  # whose clip score ranks clips
    with torch.device("meta"):
        model = wrap_model(build(), config=config)
    with torch.no_grad():
        model.to_empty(device="cpu").apply(lambda module: [p.fill_(7.0) for p in module.parameters(recurse=False)])
    for module in model.hero.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for name, value in wrap_model(build(), config=config).hero.state_dict().items():
        made = model.hero.state_dict()[name]
        assert (value == value.flatten()[0]).all() == (made == made.flatten()[0]).all(), name
        assert torch.isclose(made.std(correction=0), value.std(correction=0), rtol=0.5), name
        assert torch.isclose(made.mean(), value.mean(), rtol=0.3, atol=0.2), name


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_the_mean_of_a_score_is_not_taken_in_half_precision(dtype):
    scores = torch.full((1, 3000), 60.0) + torch.linspace(-1, 1, 3000)
    relevance = RankedRelevance().to(dtype)(scores.to(dtype), torch.ones(1, 3000, dtype=dtype))
    assert relevance.dtype == torch.float32
    torch.testing.assert_close(relevance, scores.to(dtype).float() - scores.to(dtype).float().mean())
