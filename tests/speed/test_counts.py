"""A step costs no more than what is committed in ``expected.json``; ``python -m tests.speed.counts`` writes it anew.

FLOPs are the same everywhere. Operators, and which tensors they keep, vary a little between versions of torch, so they
have some slack, and are compared with the plain base's of the same run as well.
"""

from __future__ import annotations

import pytest
import torch

from tests.old_torch import counts_flops
from tests.speed.counts import CASES, Cost, costs, expected

pytestmark = [
    counts_flops,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN torch takes other operators"),
]
SLACK = Cost(flops=1.01, operators=1.1, memory=1.05)
HINT = "if that is meant: python -m tests.speed.counts"


def too_much(found: Cost, bound: Cost) -> list[str]:
    """What exceeds its bound."""
    return [
        f"{name} {now:,} > {slack:g} * {most:,}"
        for name, now, most, slack in zip(Cost._fields, found, bound, SLACK, strict=True)
        if now > slack * most
    ]


@pytest.mark.parametrize(("base", "mode"), CASES)
def test_a_step_costs_no_more_than_expected(base, mode):
    found, bounds = costs(base, mode), expected(base, mode)
    assert found.keys() == bounds.keys()
    wrong = {name: excess for name in found if (excess := too_much(found[name], bounds[name]))}
    assert not wrong, HINT


@pytest.mark.parametrize(("base", "mode"), CASES)
def test_hero_adds_no_more_to_its_base_than_expected(base, mode):
    found, bounds = costs(base, mode), expected(base, mode)
    for name in found.keys() - {"plain"}:
        for what in Cost._fields:
            now = getattr(found[name], what) / getattr(found["plain"], what)
            then = getattr(bounds[name], what) / getattr(bounds["plain"], what)
            assert now <= 1.05 * then, f"{name}: {what} / those of the plain base; {HINT}"


def test_counts_are_the_same_on_every_run():
    first = costs("emb", "train", ("hero",))
    costs.cache_clear()
    assert costs("emb", "train", ("hero",)) == first


@pytest.mark.parametrize("base", ["emb", "qd_detr"])
def test_a_loop_over_levels_would_be_seen(base):
    """The guard guards: the paper in plain loops breaks every bound of HERO's training step."""
    literal = costs(base, "train", ("literal",))["literal"]
    assert len(too_much(literal, expected(base, "train")["hero"])) == len(Cost._fields)
