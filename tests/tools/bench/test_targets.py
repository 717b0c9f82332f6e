"""Which targets are met, by measurements made up for it."""

from __future__ import annotations

from collections import Counter

from hero_plugin.integrations.tools.bench.measure import Measurement
from hero_plugin.integrations.tools.bench.models import Setting, Variant
from hero_plugin.integrations.tools.bench.report import TARGETS, judge, models_for
from tests.tools.bench.small import small


def measured(name, seconds, memory=100, base="emb", mode="train", device="cpu", levels=4) -> Measurement:
    model = Variant(name, 0 if name in ("plain", "upstream") else levels)
    return Measurement(Setting(base, mode, device), model, small(base), 1, 1, 1, None, memory, seconds)


def verdicts(measurements, letter, device="cpu", mode="train"):
    return [
        (result.verdict, result.ratio and round(result.ratio.median, 3), result.reason)
        for result in judge(measurements)
        if (result.target.letter, result.target.device, result.target.mode) == (letter, device, mode)
    ]


RUN = [
    measured("upstream", [2.0, 4.0, 2.0]),
    measured("hero", [1.9, 3.8, 1.9], memory=300),
    measured("plain", [0.5, 1.0, 0.5], memory=100),
    measured("checkpoint", [3.0, 6.0, 3.0], memory=201),
]


def test_bounds():
    assert verdicts(RUN, "b") == [("not met", 3.8, "")]
    assert verdicts(RUN, "c") == [("met", 0.95, "")]
    assert verdicts(RUN, "d") == [("not met", 3.0, ""), ("not met", 2.01, "")]
    inference = [measured(name, [time], mode="inference") for name, time in (("plain", 1.0), ("upstream", 4.0))]
    inference.append(measured("one", [1.15], mode="inference"))
    assert verdicts(inference, "a", mode="inference") == [("met", 1.15, "")]
    assert verdicts(inference, "c", mode="inference") == [("met", 0.287, "")]


def test_a_device_that_nothing_was_measured_on_is_left_out():
    assert {result.target.device for result in judge(RUN)} == {"cpu"}
    gpu = [measured(name, [time], device="cuda") for name, time in (("plain", 1.0), ("hero", 1.6))]
    assert verdicts(gpu, "b", "cuda") == [("met", 1.6, "")]
    assert {result.target.device for result in judge([*RUN, *gpu])} == {"cpu", "cuda"}


def test_what_was_not_measured_says_why():
    assert verdicts(RUN[1:], "c") == [("not measured", None, "no clone: give --upstream")]
    untimed = [measured("hero", []), measured("plain", [])]
    assert verdicts(untimed, "b") == [("not measured", None, "not timed")]
    assert verdicts(untimed, "d")[0] == ("met", 1.0, "")
    assert verdicts(RUN[:2], "b") == [("not measured", None, "not asked for")]


def test_other_levels_do_not_count():
    run = [measured("hero", [1.0], levels=2), measured("plain", [1.0])]
    assert verdicts(run, "b") == [("not measured", None, "not asked for")]


def test_every_base_has_its_targets():
    letters = Counter((target.letter, target.device) for target in TARGETS)
    each = {"a": 4, "b": 4, "c": 2, "d": 8}
    assert letters == {(letter, device): count for letter, count in each.items() for device in ("cpu", "cuda")}
    assert set(models_for("emb", "train", "cpu", True)) == {"upstream", "hero", "plain", "checkpoint"}
    assert "upstream" not in models_for("emb", "train", "cpu", False)
    assert models_for("emb", "inference", "cpu", True) == ("plain", "one", "upstream")
    assert set(models_for("qd_detr", "inference", "cuda", True)) == {"plain", "one"}
