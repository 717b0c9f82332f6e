"""Which targets are met, by measurements made up for it."""

from __future__ import annotations

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
    measured("literal", [5.0, 10.0, 5.0], memory=300),
    measured("pair", [0.9, 1.8, 0.9]),
    measured("plain", [0.5, 1.0, 0.5], memory=100),
    measured("checkpoint", [3.0, 6.0, 3.0], memory=201),
]


def test_bounds():
    assert verdicts(RUN, "a") == [("met", 0.95, "")]
    assert verdicts(RUN, "b") == [("not met", 2.632, "")]
    assert verdicts(RUN, "d") == [("met", 0.474, "")]
    assert verdicts(RUN, "e") == [("met", 1.0, ""), ("not met", 2.01, "")]


def test_a_gpu_has_bounds_of_its_own():
    gpu = [measured(name, [time], device="cuda") for name, time in (("plain", 1.0), ("hero", 1.6), ("literal", 6.3))]
    gpu += [measured(name, [time], mode="inference", device="cuda") for name, time in (("plain", 1.0), ("hero", 1.31))]
    assert verdicts(gpu, "b", "cuda") == [("not met", 3.937, "")]
    assert verdicts(gpu, "c", "cuda") == [("met", 1.6, "")]
    assert verdicts(gpu, "c", "cuda", "inference") == [("not met", 1.31, "")]
    assert verdicts(gpu, "e", "cuda")[0] == ("met", 1.0, "")


def test_what_was_not_measured_says_why():
    assert verdicts(RUN, "c", "cuda") == [("not measured", None, "nothing on a GPU")]
    assert verdicts(RUN[1:], "a") == [("not measured", None, "no clone: give --upstream")]
    untimed = [measured("hero", []), measured("literal", [])]
    assert verdicts(untimed, "b") == [("not measured", None, "not timed")]
    assert verdicts(untimed, "e")[0] == ("met", 1.0, "")
    assert verdicts(RUN[:3], "d") == [("not measured", None, "not asked for")]


def test_other_levels_do_not_count():
    run = [measured("hero", [1.0], levels=2), measured("literal", [9.0], levels=2)]
    assert verdicts(run, "b") == [("not measured", None, "not asked for")]


def test_every_base_has_its_targets():
    letters = {(target.letter, target.device): 0 for target in TARGETS}
    for target in TARGETS:
        letters[target.letter, target.device] += 1
    assert letters == {
        ("a", "cpu"): 1,
        ("b", "cpu"): 4,
        ("b", "cuda"): 4,
        ("c", "cuda"): 8,
        ("d", "cpu"): 4,
        ("d", "cuda"): 4,
        ("e", "cpu"): 8,
        ("e", "cuda"): 8,
        ("f", "cpu"): 4,
        ("f", "cuda"): 4,
        ("g", "cpu"): 1,
    }
    assert set(models_for("emb", "train", "cpu", True)) == {
        "upstream",
        "hero",
        "literal",
        "pair",
        "plain",
        "checkpoint",
    }
    assert "upstream" not in models_for("emb", "train", "cpu", False)
    assert models_for("emb", "inference", "cpu", True) == ("plain", "one", "upstream")
    assert set(models_for("qd_detr", "inference", "cuda", True)) == {"plain", "hero", "one"}
