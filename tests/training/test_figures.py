"""Tables and figures of a run."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from hero_plugin.integrations.data import Record, read_annotations
from hero_plugin.integrations.training import figures
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.figures import (
    ModelView,
    levels_figure,
    losses_figure,
    query_figure,
    recall_figure,
)
from hero_plugin.integrations.training.load_run import answer
from hero_plugin.integrations.training.task import scores_table
from hero_plugin.integrations.training.train import main as train
from tests.screen import QUIET
from tests.training.files import detr_settings


def test_scores_have_two_decimals():
    scores = {"R1@0.3": 50.0, "R1@0.5": 40.0, "R1@0.7": 30.0, "mIoU": float("nan")}
    assert scores_table(("set",), {("val",): scores}).markdown().endswith("| val | 50.00 | 40.00 | 30.00 | - |")


def test_figures_say_what_their_axes_are(runs):
    history, base = runs.hero.history(), runs.base.history()
    view = ModelView("EMB", "red", (1.0, 5.0), np.ones(5) / 2)
    drawn = [
        losses_figure(history),
        recall_figure(history, base, ("HERO-EMB", "EMB")),
        levels_figure(history),
        query_figure(Record("q", "v", "a sentence", ((2.0, 6.0),), 10.0), [view]),
    ]
    for figure in drawn:
        assert any(axis.get_title("left") or axis.get_title() for axis in figure.axes)
        assert all(axis.get_xlabel() for axis in figure.axes[1:])
        assert figure.axes[0].get_ylabel()
    labels = [text.get_text() for text in drawn[1].axes[-1].get_legend().get_texts()]
    assert "seen, HERO-EMB" in labels
    assert "seen, EMB" in labels
    assert any(text.get_text() == "IoU 0.60" for text in drawn[3].axes[1].texts)


def test_what_a_run_lacks_is_not_drawn(runs):
    assert levels_figure(runs.base.history()) is None
    unscored = [{**line, "metrics": {}} for line in runs.base.history()]
    assert recall_figure(unscored, None, ("EMB", "")) is None


@pytest.mark.parametrize("chosen", [True, False])
def test_best_is_marked_where_a_set_chose_it(runs, chosen):
    log = runs.hero.history()
    assert "val" in log[-1]["metrics"]
    if not chosen:
        log = [{**line, **{what: without_val(line[what]) for what in ("metrics", "recall")}} for line in log]
    axes = recall_figure(log, None, ("HERO-EMB", "")).axes
    assert any(text.get_text() == " best" for axis in axes for text in axis.texts) == chosen
    assert axes[-1].get_ylabel() == f"R1 of the {'best' if chosen else 'last'} epoch, percent"


def without_val(by_set):
    return {name: scores for name, scores in by_set.items() if name != "val"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", [{"max_clips": 6}, {"word_norm": 2.0}, {"base": "qd_detr", "normalize_features": True}]
)
def test_a_compared_run_reads_as_it_was_trained_to(other, runs, tmp_path, monkeypatch):
    settings = runs.files.settings() if "base" not in other else detr_settings(runs.files, other["base"])
    given = {**settings, **other, "output": str(tmp_path / "other"), "epochs": 1, "figure_queries": 0}
    compared = train(config_from(given, "test"), QUIET)
    drawn = []
    monkeypatch.setattr(figures, "query_figure", lambda *args: drawn.append(args[1]) or query_figure(*args))
    train(runs.config(output=str(tmp_path / "run"), compare=str(compared.path), epochs=1, figure_queries=3), QUIET)
    records = read_annotations(runs.files.root / "unseen.json")
    chosen = [records[place] for place in np.linspace(0, len(records) - 1, 3).round().astype(int)]
    expected = answer(compared.path, chosen, runs.files.root / "features", device="cpu")
    assert [len(views) for views in drawn] == [2, 2, 2]
    for index, views in enumerate(drawn):
        np.testing.assert_array_equal(views[0].moment, expected.moments[index, 0])
        np.testing.assert_array_equal(views[0].relevance, expected.relevance[index])


@pytest.mark.slow
def test_a_compared_run_whose_files_are_gone_is_left_out(runs, tmp_path, capsys):
    words = shutil.copy(runs.files.root / "words.npz", tmp_path)
    given = {"output": str(tmp_path / "other"), "words": words, "epochs": 1, "figure_queries": 0}
    compared = train(runs.config(**given), QUIET)
    (tmp_path / "words.npz").unlink()
    run = train(runs.config(output=str(tmp_path / "run"), compare=str(compared.path), epochs=1))
    assert "the query figures leave other out" in " ".join(capsys.readouterr().out.split())
    assert len(list((run.figures / "queries").iterdir())) == 1
