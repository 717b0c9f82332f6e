"""The demo: both models on the same data, one table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from hero_plugin.integrations.data.synthetic import SyntheticConfig
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools import demo
from hero_plugin.integrations.tools.demo import DemoConfig
from tests.screen import QUIET


@pytest.fixture
def small_demo(monkeypatch):
    sizes = SyntheticConfig(train_videos=12, test_videos=6, clips=(12, 14))
    monkeypatch.setattr(demo, "SyntheticConfig", lambda seed: replace(sizes, seed=seed))


@pytest.mark.slow
def test_the_demo_treats_both_alike_and_prints_one_table(small_demo, tmp_path, capsys):
    folder = tmp_path / "demo-run"
    results = demo.main(DemoConfig(folder, epochs=1), Screen(Console(width=120)))
    out = capsys.readouterr().out
    assert set(results) == {"EMB", "HERO-EMB"}
    assert all({"seen", "unseen"} <= set(scores) for scores in results.values())
    assert out.count("R1@0.3") == 1
    assert str(folder / "hero-emb/figures/recall.png") in out.replace("\n", "")
    base, hero = (json.loads((folder / name / "config.json").read_text()) for name in ("emb", "hero-emb"))
    assert {name for name in base if base[name] != hero[name]} == {"base_only", "compare", "figure_queries"}
    assert len((folder / "emb/log.jsonl").read_text().splitlines()) == 1
    demo.main(DemoConfig(folder, epochs=1), QUIET)


def test_the_demo_spares_folders_of_others(small_demo, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="no demo made it"):
        demo.main(DemoConfig(tmp_path, epochs=1), QUIET)
    assert (tmp_path / "precious.txt").read_text() == "mine"
