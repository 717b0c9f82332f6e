"""Tables and figures of a run."""

from __future__ import annotations

import numpy as np
import pytest

from hero_plugin.integrations.training.figures import (
    ModelView,
    levels_figure,
    losses_figure,
    query_figure,
    recall_figure,
)
from hero_plugin.integrations.training.task import scores_table


def test_scores_have_two_decimals():
    scores = {"R1@0.3": 50.0, "R1@0.5": 40.0, "R1@0.7": 30.0, "mIoU": float("nan")}
    assert scores_table(("set",), {("val",): scores}).markdown().endswith("| val | 50.00 | 40.00 | 30.00 | - |")


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
