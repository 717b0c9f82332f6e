"""What a person sees: progress, tables, figures and the demo."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from hero_plugin.integrations.data.synthetic import SyntheticConfig
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools import demo
from hero_plugin.integrations.tools.demo import DemoConfig
from hero_plugin.integrations.training.figures import (
    ModelView,
    levels_figure,
    losses_figure,
    query_figure,
    recall_figure,
)
from hero_plugin.integrations.training.task import brief_scores, score_cells, scores_table

LINE = {
    "epoch": 2,
    "losses": {"loss": 1.5},
    "metrics": {"val": {"R1@0.3": 50.0, "R1@0.5": 40.0, "R1@0.7": 30.0, "mIoU": 35.0}},
    "seconds": 7.2,
}


def screen(terminal: bool) -> tuple[Screen, io.StringIO]:
    stream = io.StringIO()
    return Screen(Console(file=stream, force_terminal=terminal, width=100), label="run"), stream


def drive(made: Screen) -> None:
    with made.training(epochs=10, steps=4):
        made.position(1, 2)
        made.step()
        made.loss(1.25)
        made.evaluating("val", 3)
        made.evaluated()
        made.epoch_line(LINE, brief_scores(LINE["metrics"]))


def test_without_a_terminal_there_is_one_line_an_epoch():
    made, stream = screen(terminal=False)
    drive(made)
    assert stream.getvalue() == "run  epoch  2/10  loss 1.500  val 50.0/40.0/30.0/35.0  7 s\n"


def test_on_a_terminal_there_are_bars_as_well():
    made, stream = screen(terminal=True)
    drive(made)
    for part in ("epoch 2/10", "scoring val", "7/40", "50.0/40.0/30.0/35.0"):
        assert part in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_quiet_screen_says_nothing():
    stream = io.StringIO()
    made = Screen(Console(file=stream, force_terminal=True), quiet=True)
    drive(made)
    made.show(scores_table([], ("set",)))
    assert stream.getvalue() == ""


def test_scores_have_two_decimals():
    assert score_cells(LINE["metrics"]["val"]) == ("50.00", "40.00", "30.00", "35.00")


def test_figures_say_what_their_axes_are(runs):
    history, base = runs.hero.history(), runs.base.history()
    view = ModelView("EMB", "red", (1.0, 5.0), np.ones(5) / 2)
    figures = [
        losses_figure(history),
        recall_figure(history, base, ("HERO-EMB", "EMB")),
        levels_figure(history),
        query_figure("a sentence", "a query", [(2.0, 6.0)], 10.0, [view]),
    ]
    for figure in figures:
        assert any(axis.get_title("left") or axis.get_title() for axis in figure.axes)
        assert all(axis.get_xlabel() for axis in figure.axes[1:])
        assert figure.axes[0].get_ylabel()
    labels = [text.get_text() for text in figures[1].axes[-1].get_legend().get_texts()]
    assert "seen, HERO-EMB" in labels
    assert "seen, EMB" in labels
    assert any(text.get_text() == "IoU 0.60" for text in figures[3].axes[1].texts)


def test_what_a_run_lacks_is_not_drawn(runs):
    assert levels_figure(runs.base.history()) is None
    unscored = [{**line, "metrics": {}} for line in runs.base.history()]
    assert recall_figure(unscored, None, ("EMB", "")) is None


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
    demo.main(DemoConfig(folder, epochs=1), Screen(quiet=True))


def test_the_demo_spares_folders_of_others(small_demo, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="no demo made it"):
        demo.main(DemoConfig(tmp_path, epochs=1), Screen(quiet=True))
    assert (tmp_path / "precious.txt").read_text() == "mine"
