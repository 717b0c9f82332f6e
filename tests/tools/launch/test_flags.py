"""HERO's choices as flags."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_plugin import HeroConfig
from hero_plugin.config import CHOICES
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.launch import cli
from hero_plugin.integrations.tools.launch.cli import read
from hero_plugin.integrations.tools.launch.wrapping import as_flags, contradictions, in_flags

USUAL = HeroConfig()
STARTS = st.sampled_from([USUAL, HeroConfig.paper(), HeroConfig.off()])


def values(name):
    value = getattr(USUAL, name)
    if name in CHOICES:
        return st.sampled_from(CHOICES[name])
    if isinstance(value, bool):
        return st.booleans()
    if name == "inference":
        return st.sampled_from([None, (0,), (0, 1)])
    return st.sampled_from([0.25, 0.5]) if isinstance(value, float) else st.integers(1, 9)


@st.composite
def configs(draw):
    names = draw(st.sets(st.sampled_from([each.name for each in fields(HeroConfig)])))
    changes = {name: draw(values(name)) for name in sorted(names)}
    try:
        return replace(draw(STARTS), **changes)
    except ValueError:
        return USUAL


@settings(deadline=None, max_examples=30)
@given(configs())
def test_the_flags_that_are_said_give_the_same_config(config):
    assert read(as_flags(config).split(), USUAL).hero == config


@settings(deadline=None, max_examples=30)
@given(configs(), configs())
def test_only_what_the_weights_mean_contradicts(chosen, known):
    wrong = contradictions(chosen, known)
    assert all(getattr(chosen, name) != getattr(known, name) for name in wrong)
    assert contradictions(known, known) == []
    only_in_training = replace(known, dropout=0.7, mask_ratio=0.4, noise_size=0.3, checkpoint=not known.checkpoint)
    assert contradictions(only_in_training, known) == []
    assert set(wrong) == set(contradictions(known, chosen))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("identity_start needs norm='pre': so", "--identity-start needs --norm pre: so"),
        ("cmtr=True trains; set cmtr=False", "--cmtr trains; set --no-cmtr"),
        ("levels must be whole, got 0", "--levels must be whole, got 0"),
        ("weights, got relevance_weight=-1.0, or", "weights, got --relevance-weight -1.0, or"),
        ("the gate of a norm", "the gate of a norm"),
        ("freeze_base=True with HERO off", "--freeze-base with HERO off"),
    ],
)
def test_messages(message, said):
    assert in_flags(message) == said


def test_all_that_is_too_small_is_said_line_by_line(monkeypatch):
    monkeypatch.setattr(cli, "too_small", lambda config, **least: ["one", "two"])
    with pytest.raises(UserError, match=r"^one\ntwo$"):
        cli.command(["--", "python", "train.py"])
