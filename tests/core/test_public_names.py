"""What can be imported is documented, and the examples in the documentation run."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

import hero_plugin
from hero_plugin import aggregation, cmtr, hem, protocol, sgvf, tensors, wrap
from tests.core.bases import DIM, ToyFuser, TuplePredictor


@pytest.mark.parametrize("name", hero_plugin.__all__)
def test_public_names_have_docstrings(name):
    thing = getattr(hero_plugin, name)
    assert inspect.getdoc(thing)
    for key, member in vars(thing).items() if inspect.isclass(thing) else ():
        if callable(member) and not key.startswith("_") and key != "extra_repr":
            assert inspect.getdoc(getattr(thing, key)), f"{name}.{key}"


def test_everything_promised_is_public():
    modules = {"HEM", "SGVF", "CMTR", "WeightedAggregation", "PairRelevance"}
    functions = {"relevance_loss", "consistency_loss", "hero_losses", "hero_state_dict"}
    wrappers = {"HeroConfig", "HeroModel", "wrap_model", "unwrap_model", "wrap_criterion"}
    protocol = {"Fuser", "Predictor", "Grounder", "TwoStage"}
    promised = modules | functions | wrappers | protocol
    assert promised <= set(hero_plugin.__all__)
    assert len(set(hero_plugin.__all__)) == len(hero_plugin.__all__)


EXAMPLES = {
    "HEM": (hem, hem.HEM, {}),
    "SGVF": (sgvf, sgvf.SGVF, {}),
    "CMTR": (cmtr, cmtr.CMTR, {}),
    "WeightedAggregation": (aggregation, aggregation.WeightedAggregation, {}),
    "expect_shape": (tensors, tensors.expect_shape, {"torch": torch}),
    "TwoStage": (
        protocol,
        protocol.TwoStage,
        {
            **{name: getattr(hero_plugin, name) for name in hero_plugin.__all__},
            "torch": torch,
            "nn": nn,
            "fuser": ToyFuser(128),
            "predictor": TuplePredictor(128),
            "video": torch.randn(2, 8, 128),
            "query": torch.randn(2, 5, 128),
            "video_mask": torch.ones(2, 8),
            "query_mask": torch.ones(2, 5),
        },
    ),
    "wrap_model": (
        wrap,
        wrap.wrap_model,
        {
            "HeroConfig": hero_plugin.HeroConfig,
            "wrap_model": lambda model, *args, **kw: (hero_plugin.wrap_model(model, *args, **kw), model)[1],
            "model": protocol.TwoStage(ToyFuser(DIM), TuplePredictor(DIM), DIM),
        },
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings_run(name):
    module, thing, extra = EXAMPLES[name]
    globs = {**vars(module), "torch": torch, **extra}
    found = doctest.DocTestFinder(recurse=False).find(thing, name, module, globs=globs)
    assert found and found[0].examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    for test in found:
        report = []
        assert runner.run(test, out=report.append).failed == 0, "".join(report)


@pytest.mark.slow
def test_names_are_loaded_when_they_are_asked_for():
    code = """
import sys, hero_plugin as hero
assert "torch" not in sys.modules and set(hero.__all__) <= set(dir(hero))
from hero_plugin import *
assert wrap_model is hero.wrap_model and hero.losses.wrap_criterion is wrap_criterion
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert not hasattr(hero_plugin, "no_such_name")
