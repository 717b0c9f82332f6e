"""``check_adapter`` on every base that an adapter is shipped for."""

from __future__ import annotations

import pytest
import torch

from hero_plugin import check_adapter
from tests.adapters import authors, test_flash_vtg
from tests.adapters.detr_bases import BASES, REFERENCES, RELATIVES, batch, build, model_of, targets
from tests.core import emb


def figures(report, skipped=()):
    """The figures of a report without a failure, by check."""
    assert report.ok, str(report)
    assert {finding.check for finding in report.findings if finding.result == "skipped"} == set(skipped), str(report)
    found = {finding.check: finding.figure for finding in report.findings}
    assert found["off is the base"] == 0 and found["one level is the base"] == 0  # bit for bit
    assert found["relate is ground's relevance"] <= 1e-6
    return found


def marks(name):
    return [] if name in REFERENCES else [pytest.mark.upstream, pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in (*BASES, *RELATIVES)])
def test_a_detr(name):
    base, _ = build(name)
    inputs = batch(name)
    if model_of(name) == "cg_detr":  # whose loss in training needs them
        inputs["targets"] = targets(inputs)
    figures(check_adapter(base, **inputs))


def their_emb():
    return authors.load_emb().EMB(emb.config(), emb.vectors().numpy())


@pytest.mark.parametrize(
    "make", [pytest.param(emb.emb, marks=pytest.mark.slow), pytest.param(their_emb, marks=pytest.mark.upstream)]
)
def test_emb(make):
    torch.manual_seed(0)
    assert figures(check_adapter(make(), *emb.batch()))["levels one by one"] <= 1e-5


@pytest.mark.slow
@pytest.mark.upstream
@pytest.mark.parametrize(
    ("samples", "skipped"), [(3, ["fresh is the base, eval"]), (1, ["gradients arrive"])], ids=["several", "one"]
)
def test_flashvtg(samples, skipped):
    """In eval mode it takes one sample, and of one sample its own training step has no backward."""
    base, _ = test_flash_vtg.build()
    figures(check_adapter(base, **test_flash_vtg.inputs(samples)), skipped)
