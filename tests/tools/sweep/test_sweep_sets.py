"""A sweep's finished runs on further sets, and its pictures."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal

import numpy as np
import pytest

from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.plotting import BASE, HERO
from hero_plugin.integrations.support.process import Interrupted
from hero_plugin.integrations.tools import sweep as sweeping
from hero_plugin.integrations.tools.sweep import SweepConfig, main, metric_figure
from tests.screen import QUIET


@pytest.fixture
def sweep(runs, tmp_path):
    """A sweep whose runs are finished; called with its further sets, returns its file."""
    for run, name in ((runs.base, "emb"), (runs.hero, "hero-emb")):
        shutil.copytree(run.path, tmp_path / "runs" / f"{name}-seed0")

    def written(sets, **changes):
        file = tmp_path / "sweep.json"
        plan = {
            "output": str(tmp_path / "runs"),
            "seeds": [0],
            "settings": runs.files.settings(),
            "variants": {"EMB": {"base_only": True}, "HERO-EMB": {}},
            "compare": {"HERO-EMB": "EMB"},
            "sets": sets,
            **changes,
        }
        file.write_text(json.dumps(plan))
        return file

    return written


def table(file):
    return json.loads((file.parent / "runs" / "results.json").read_text())["sets"]


def test_finished_runs_are_scored_on_further_sets_as_eval_does(sweep, runs, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(runs.files.root / "features", moved)
    shutil.copy(runs.files.root / "unseen.json", tmp_path / "late.json")
    sets = {"late": str(tmp_path / "late.json")}
    sets["moved"] = {"annotations": str(runs.files.root / "val.json"), "features": [str(moved)]}
    file = sweep(sets)
    assert main(SweepConfig(file, figures=False), QUIET) == 0
    found = table(file)
    assert list(found) == ["val", "seen", "unseen", "late", "moved"]
    for variant, run in (("EMB", runs.base), ("HERO-EMB", runs.hero)):
        assert found["late"][variant] == found["unseen"][variant]
        asked = EvalConfig(
            run=(run.path,), annotations=(f"moved={runs.files.root / 'val.json'}",), features=(moved,), resamples=0
        )
        expected = evaluate(asked, QUIET)["moved"]["mIoU"]
        assert found["moved"][variant]["mIoU"]["values"] == [expected]
    assert "| moved | HERO-EMB minus EMB |" in (tmp_path / "runs/results.md").read_text()


def test_annotations_are_read_for_their_checksums_once_whatever_the_number_of_runs(sweep, runs, monkeypatch):
    file, read = sweep({}), []
    monkeypatch.setattr(hashlib, "sha256", lambda new=hashlib.sha256: read.append(1) or new())
    assert main(SweepConfig(file, figures=False), QUIET) == 0
    settings = runs.base.settings()
    assert len(read) <= len({settings.annotations_train, settings.annotations_val, *settings.test_sets()})


@pytest.mark.slow
def test_a_set_is_scored_once_and_again_when_it_has_changed(sweep, runs, tmp_path, monkeypatch):
    late = tmp_path / "late.json"
    shutil.copy(runs.files.root / "unseen.json", late)
    file, scored = sweep({"late": str(late)}), []

    def counted(run, *given, original=sweeping.evaluate_run):
        scored.append(run.path.name)
        return original(run, *given)

    monkeypatch.setattr(sweeping, "evaluate_run", counted)
    both = ["emb-seed0", "hero-emb-seed0"]
    assert main(SweepConfig(file, only=("EMB",), figures=False), QUIET) == 0
    assert scored == both[:1] and [*table(file)["late"]] == ["EMB"]
    assert main(SweepConfig(file, figures=False), QUIET) == 0
    assert scored == both and [*table(file)["late"]] == ["EMB", "HERO-EMB"]
    assert main(SweepConfig(file, figures=False), QUIET) == 0
    assert scored == both
    shutil.copy(runs.files.root / "seen.json", late)
    assert main(SweepConfig(file, table_only=True, figures=False), QUIET) == 0
    assert "late" not in table(file)  # what is known is of other queries
    assert main(SweepConfig(file, figures=False), QUIET) == 0
    assert scored == both * 2 and table(file)["late"] == table(file)["seen"]
    assert main(SweepConfig(file, checkpoint="last", figures=False), QUIET) == 0
    assert scored == both * 3
    assert main(SweepConfig(file, figures=False), QUIET) == 0
    assert scored == both * 3


def test_a_set_is_scored_again_when_its_features_or_words_were_made_anew(sweep, runs, tmp_path):
    moved, words = tmp_path / "elsewhere", tmp_path / "words.npz"
    shutil.copytree(runs.files.root / "features", moved)
    shutil.copy(runs.base.settings().words, words)
    annotations = str(runs.files.root / "val.json")
    file = sweep({"moved": {"annotations": annotations, "features": [str(moved)], "words": str(words)}})
    kept = tmp_path / "runs" / "emb-seed0.sets.json"

    def scored_again():
        made_up = json.loads(kept.read_text())
        made_up["moved"]["best"]["scores"]["mIoU"] = -1.0
        kept.write_text(json.dumps(made_up))
        assert main(SweepConfig(file, figures=False), QUIET) == 0
        return table(file)["moved"]["EMB"]["mIoU"]["values"] != [-1.0]

    assert main(SweepConfig(file, figures=False), QUIET) == 0
    assert not scored_again()
    (moved / "manifest.json").write_text('{"seed": 1}')
    assert scored_again() and not scored_again()
    (moved / "manifest.json").write_text('{"seed": 2}')
    assert scored_again()
    with np.load(words) as table_of_words:
        np.savez(words, **table_of_words, more=np.zeros(1))
    assert scored_again() and not scored_again()
    earlier = json.loads(kept.read_text())
    for name in ("made_by", "words_sha256"):  # what earlier versions did not note
        del earlier["moved"]["best"]["made_from"][name]
    kept.write_text(json.dumps(earlier))
    assert scored_again()


def test_rows_that_a_changed_set_costs_are_told(sweep, runs, tmp_path, capsys):
    late = tmp_path / "late.json"
    shutil.copy(runs.files.root / "unseen.json", late)
    file = sweep({"late": str(late)})
    assert main(SweepConfig(file, figures=False), Screen()) == 0
    assert "not scored" not in capsys.readouterr().out
    shutil.copy(runs.files.root / "seen.json", late)
    assert main(SweepConfig(file, table_only=True, figures=False), Screen()) == 0
    said = capsys.readouterr().out
    assert "note: EMB (seed 0), HERO-EMB (seed 0): not scored on late as it is now" in said
    assert "without --table-only scores" in said
    assert main(SweepConfig(file, only=("EMB",), figures=False), Screen()) == 0
    said = capsys.readouterr().out
    assert "note: HERO-EMB (seed 0): not scored on late as it is now" in said and "without --only scores" in said
    assert [*table(file)["late"]] == ["EMB"]
    assert main(SweepConfig(file, figures=False), Screen()) == 0
    assert "not scored" not in capsys.readouterr().out and [*table(file)["late"]] == ["EMB", "HERO-EMB"]


def test_a_set_may_come_later(sweep, runs, tmp_path, capsys):
    file = sweep({"late": str(tmp_path / "late.json")})
    assert main(SweepConfig(file, figures=False), Screen()) == 0
    assert f"late waits for {tmp_path / 'late.json'}" in capsys.readouterr().out and "late" not in table(file)
    shutil.copy(runs.files.root / "unseen.json", tmp_path / "late.json")
    assert main(SweepConfig(file, figures=False), Screen()) == 0
    assert "waits" not in capsys.readouterr().out and "late" in table(file)


def test_a_set_that_cannot_be_read_costs_nothing_else(sweep, runs, tmp_path, capsys):
    (tmp_path / "broken.json").write_text("{}")
    sets = {"broken": str(tmp_path / "broken.json"), "good": str(runs.files.root / "unseen.json")}
    sets["no videos"] = {"annotations": str(runs.files.root / "seen.json"), "features": [str(tmp_path)]}
    file = sweep(sets)
    assert main(SweepConfig(file, figures=False), Screen()) == 1
    said = capsys.readouterr().out
    for name in ("broken", "no videos"):
        assert f"failed: {name}, by EMB, seed 0; HERO-EMB, seed 0: " in said and name not in table(file)
    assert [*table(file)["good"]] == ["EMB", "HERO-EMB"]


def test_ctrl_c_between_two_runs_keeps_what_is_scored(sweep, runs, tmp_path, monkeypatch):
    file = sweep({"good": str(runs.files.root / "unseen.json")})

    def stopped(*given, original=sweeping.evaluate_run):
        found = original(*given)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(sweeping, "evaluate_run", stopped)
    with pytest.raises(Interrupted, match="same command carries on"):
        main(SweepConfig(file, figures=False), QUIET)
    monkeypatch.undo()
    assert main(SweepConfig(file, table_only=True, figures=False), QUIET) == 0
    assert [*table(file)["good"]] == ["EMB"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["a.json"], "sets are named annotations"),
        ({"a": 3}, "set 'a' is a path, or a table that has `annotations`"),
        ({"a": {"features": ["f"]}}, "set 'a' is a path, or a table that has `annotations`"),
        ({"a": {"annotations": "a.json", "feature": "f"}}, "did you mean 'features'"),
        (
            {"a": {"annotations": "a.json", "on_broken": "skip"}},
            "set 'a': on_broken must be 'error' or 'drop', got 'skip'",
        ),
        ({"seen": "a.json"}, "set 'seen' needs another name"),
        ({"val": "a.json"}, "set 'val' needs another name"),
    ],
)
def test_a_wrong_set_is_told_before_anything_runs(sweep, sets, said):
    with pytest.raises(UserError, match=said):
        main(SweepConfig(sweep(sets)), QUIET)


def scores(*values):
    mean = sum(values) / len(values)
    return {"seeds": [*range(len(values))], "mIoU": {"values": [*values], "mean": mean, "std": 1.0}}


def test_a_picture_shows_every_variant_and_difference_on_every_set():
    difference = {"variant": "HERO", "minus": "EMB", "seeds": [0, 1]}
    gain = {**difference, "mIoU": {"values": [2.0, 4.0], "mean": 3.0, "interval": [1.0, 5.0], "p": 0.01}}
    loss = {**difference, "mIoU": {"values": [-9.0, 5.0], "mean": -2.0, "interval": [-20.0, 16.0], "p": 0.7}}
    sets = {"iid": {"EMB": scores(40.0, 42.0), "HERO": scores(42.0, 46.0)}, "ood": {"HERO": scores(30.0)}}
    sets["ood"]["HERO"]["mIoU"]["std"] = None
    results = {"checkpoint": "best", "sets": sets, "differences": {"iid": [gain], "ood": [loss]}}
    above, below = (metric_figure(results, "mIoU").axes[at : at + 2] for at in (0, 2))
    assert [axis.get_title(loc="left") for axis in above] == ["iid", "ood"]
    assert [text.get_text() for text in above[0].get_yticklabels()] == ["EMB", "HERO"]
    assert [text.get_text() for text in below[0].get_yticklabels()] == ["HERO minus EMB"]
    points = [[bar.lines[0] for bar in axis.containers] for axis in (*above, *below)]
    assert [[(*line.get_xdata(), *line.get_ydata()) for line in lines] for lines in points] == [
        [(41.0, 0), (44.0, 1)], [(30.0, 1)], [(3.0, 0)], [(-2.0, 0)],
    ]  # fmt: skip
    assert [line.get_color() for line in points[0]] == [BASE, HERO]
    assert [lines[0].get_markerfacecolor() for lines in points[2:]] == [HERO, "white"]
    low, high = below[0].get_xlim()
    assert low < -20 and high > 16 and below[1].get_xlim() == (low, high)
    without = metric_figure({**results, "differences": {}}, "mIoU")
    assert len(without.axes) == 2


@pytest.mark.parametrize("names", [("iid",), ("iid", "ood", "further")])
def test_the_note_fits_below_the_picture(names):
    difference = {"variant": "HERO", "minus": "EMB", "seeds": [0, 1], "mIoU": {"values": [2.0, 4.0], "mean": 3.0}}
    difference["mIoU"] |= {"interval": [1.0, 5.0], "p": 0.01}
    sets = {name: {"EMB": scores(40.0, 42.0), "HERO": scores(42.0, 46.0)} for name in names}
    differences = {name: [difference] for name in names}
    figure = metric_figure({"checkpoint": "best", "sets": sets, "differences": differences}, "mIoU")
    figure.canvas.draw()
    note = next(text for text in figure.texts if "t-test" in text.get_text())
    assert note.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.slow
def test_a_sweep_draws_its_table(sweep, tmp_path):
    assert main(SweepConfig(sweep({})), QUIET) == 0
    drawn = sorted(path.name for path in (tmp_path / "runs/figures").iterdir())
    assert drawn == ["R1_0.3.png", "R1_0.5.png", "R1_0.7.png", "mIoU.png"]


def test_a_sweep_writes_its_table_as_latex_too(sweep, tmp_path):
    assert main(SweepConfig(sweep({}), figures=False, table=(tmp_path / "table.tex",)), QUIET) == 0
    assert r"\begin{tabular}{llrrrrr}" in (tmp_path / "table.tex").read_text()
    with pytest.raises(UserError, match=r"table\.docx: a table is written by its file's ending, one of \.md"):
        main(SweepConfig(sweep({}), table=(tmp_path / "table.docx",)), QUIET)


def test_scores_outlive_the_checkpoints_that_they_are_of(sweep, runs, tmp_path):
    file = sweep({"good": str(runs.files.root / "unseen.json")})
    assert main(SweepConfig(file, figures=False), QUIET) == 0
    before = table(file)["good"]
    for checkpoint in (tmp_path / "runs").glob("*/*.pt"):
        checkpoint.unlink()
    assert main(SweepConfig(file, figures=False), QUIET) == 0
    assert table(file)["good"] == before
