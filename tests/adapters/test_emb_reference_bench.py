"""The benchmark measures both models, and says what is wrong before it starts."""

from __future__ import annotations

import json

import pytest

from hero_plugin.integrations.bench_emb import BenchConfig, interleaved, main
from hero_plugin.integrations.errors import UserError
from tests.resources import upstream


def test_it_writes_what_it_measured(tmp_path, capsys):
    target = tmp_path / "bench.json"
    sizes = ["--batch", "2", "--clips", "20", "--words", "3", "--dim", "16", "--steps", "2", "--warmup", "1"]
    assert main(["--upstream", str(upstream("EMB")), *sizes, "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    assert {name: len(times) for name, times in result["milliseconds"].items()} == {"upstream": 2, "reference": 2}
    assert result["ratio"] == pytest.approx(result["median"]["upstream"] / result["median"]["reference"])
    assert result["loss_difference"] < 1e-4
    assert "times faster" in capsys.readouterr().out


def test_models_take_turns_and_warm_up():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    times = interleaved(steps, warmup=1, count=2)
    assert calls == ["a", "b"] * 3
    assert all(len(values) == 2 for values in times.values())


def test_mistakes_are_told_before_the_measurement(tmp_path):
    with pytest.raises(UserError, match="steps must be at least 1, got 0"):
        BenchConfig(upstream=tmp_path, steps=0)
    with pytest.raises(UserError, match="create it first"):
        BenchConfig(upstream=tmp_path, json=tmp_path / "missing" / "bench.json")
    with pytest.raises(FileNotFoundError, match="is no clone of EMB"):
        main(["--upstream", str(tmp_path)])
