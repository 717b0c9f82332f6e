"""A wrapped base predicts at the start what the base does, up to rounding, for every config that says so."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from hero_plugin import HeroConfig, wrap_model
from tests.core import detr
from tests.core.bases import tensors, tuple_base
from tests.core.cases import CASES as SHARED

CASES = {**SHARED, "tr_detr": (detr.tr_detr, detr.batch)}
STARTS = {
    "default": HeroConfig(),
    "two levels": HeroConfig(levels=2),
    "eight levels": HeroConfig(levels=8, stride=1),
    "one level": HeroConfig(levels=1),
    "projections": HeroConfig(projections=True),
    "pair": HeroConfig(relevance="pair"),
    "no positions": HeroConfig(positions=False),
    "weights of the query": HeroConfig(level_weights="query", perturb="noise"),
    "one level, unnormalised": HeroConfig(levels=1, normalize=False, identity_start=False),
}
CANNOT = {
    "paper": (HeroConfig.paper(), ["identity_start", "norm='post'", "normalize", "gate='sigmoid'"]),
    "sigmoid": (HeroConfig(gate="sigmoid"), ["gate='sigmoid'"]),
    "unnormalised": (HeroConfig(normalize=False), ["normalize=False"]),
    "random encoder": (HeroConfig(identity_start=False), ["identity_start=False"]),
}


def gap(name, config, train):
    """The largest difference between the predictions of a base and of the same base wrapped."""
    torch.manual_seed(0)
    build, make = CASES[name]
    base, batch = build().train(train), make()
    with torch.no_grad():
        pairs = list(zip(tensors(base(*batch)), tensors(wrap_model(base, config=config)(*batch)), strict=True))
    real = [(one.double(), other.double(), one > -1e4) for one, other in pairs]
    return max((one[there] - other[there]).abs().max() for one, other, there in real if there.any())


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("name", "config"), list(product(CASES, STARTS)))
def test_starts_as_the_base(name, config, train):
    assert STARTS[config].starts_as_base
    assert gap(name, STARTS[config], train) < 2e-6


@pytest.mark.parametrize(("name", "config"), list(product(CASES, CANNOT)))
def test_cannot_start_as_the_base(name, config):
    assert not CANNOT[config][0].starts_as_base
    assert gap(name, CANNOT[config][0], False) > 1e-4


@pytest.mark.parametrize("name", CANNOT)
def test_insisting_on_it_says_what_is_in_the_way(name):
    config, said = CANNOT[name]
    with pytest.raises(ValueError, match="does not start with the base's predictions") as error:
        wrap_model(tuple_base(), config=config, start_as_base=True)
    assert all(part in str(error.value) for part in said)
    assert wrap_model(tuple_base(), start_as_base=True).config == HeroConfig()
