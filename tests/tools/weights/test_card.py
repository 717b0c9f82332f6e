"""``hero-plugin weights card``: a run's plug-in as a folder, its card from the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from hero_plugin import from_pretrained, read_plugin
from hero_plugin.integrations import cli
from hero_plugin.integrations.tools.adapt.config import AdaptConfig
from hero_plugin.integrations.tools.weights import sections
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.plugin import base_weights, files_of
from tests.core import emb


def card(capsys, *words):
    status = cli.main(["weights", "card", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_run_becomes_a_folder(runs, tmp_path, capsys):
    status, out, err = card(capsys, runs.hero.path, tmp_path / "hub")
    assert status == 0, err
    assert "README.md, base." in out and "plugin." in out
    saved = torch.load(runs.hero.best, weights_only=True)["model"]
    plugin, base = (
        read_plugin(*files_of(tmp_path / "hub", "plugin")),
        base_weights(tmp_path / "hub"),
    )
    weights = {**plugin.hero, **{f"base.{name}": value for name, value in base.items()}}
    assert weights.keys() == saved.keys() and all(torch.equal(weights[name], saved[name]) for name in saved)

    text = (tmp_path / "hub" / "README.md").read_text("utf-8")
    results, settings = runs.hero.results(), runs.hero.config()
    for scores in results["best"].values():
        assert all(f"{value:.2f}" in text for value in scores.values() if isinstance(value, float))
    assert f"Of epoch {results['best_epoch']}, the best on {results['selected_on']}" in text
    assert f"| seed | {settings['seed']} |" in text and "| base | emb, trained |" in text
    assert f"Trained with hero_plugin {settings['versions']['hero_plugin']}, torch {torch.__version__}" in text
    assert str(runs.hero.path.parent) not in text  # no folder is told

    status, _, err = card(capsys, runs.hero.path, tmp_path / "hub")
    assert status == 2 and "already: add --overwrite" in err
    assert card(capsys, runs.hero.path, tmp_path / "hub", "--without-base", "--overwrite")[0] == 0
    assert not files_of(tmp_path / "hub", "base")
    shutil.copytree(runs.hero.path, tmp_path / "adapted")
    settings = {**runs.hero.config(), "freeze_base": True, "init_base": None, "adapted": {}}
    (tmp_path / "adapted" / "config.json").write_text(json.dumps(settings))
    assert card(capsys, tmp_path / "adapted", tmp_path / "shared")[0] == 0
    assert files_of(tmp_path / "shared", "base")  # of another run, which nobody else has
    with pytest.warns(UserWarning, match="the base is not quite the one"):  # it has another word table
        assert from_pretrained(emb.emb(), tmp_path / "hub").config == plugin.config


def test_what_makes_no_card_is_told(runs, tmp_path, capsys):
    status, _, err = card(capsys, runs.base.path, tmp_path / "hub")
    assert status == 2 and "trained without HERO" in err and not (tmp_path / "hub").exists()
    status, _, err = card(capsys, tmp_path / "none", tmp_path / "hub")
    assert status == 2 and "none" in err
    shutil.copytree(runs.hero.path, tmp_path / "begun")
    (tmp_path / "begun" / "results.json").unlink()
    status, _, err = card(capsys, tmp_path / "begun", tmp_path / "hub")
    assert status == 2 and "not finished" in err


def test_files_are_named_without_their_folders():
    settings = {
        "base": "emb",
        "freeze_base": True,
        "init_base": "/home/me/best.pt",
        "annotations_train": "/home/me/train.json",
        "annotations_test": ["ood=/home/me/a=b/ood.json", "/home/me/iid.json"],
        "features": ["/home/me/i3d"],
        "seed": 3,
    }
    best = {"val": {"R1@0.5": 1.0}, "ood": {"R1@0.5": 2.0, "mIoU": 3.25}}
    told = sections(settings, {"best": best, "best_epoch": 2, "selected_on": "val"})
    assert told["Figures"].endswith("| set | R1@0.5 | mIoU |\n|---|---:|---:|\n| val | 1.00 | |\n| ood | 2.00 | 3.25 |")
    assert "| annotations train | train.json |" in told["Data"] and "home" not in told["Data"]
    assert "| annotations test | ood=ood.json, iid=iid.json |" in told["Data"]
    assert "| base | emb, frozen from best.pt |" in told["Training"] and "home" not in told["Training"]
    assert told["Figures"].startswith("Of epoch 2, the best on val; one training")
    told = sections(settings, {"best": best, "best_epoch": 2, "selected_on": None})
    assert told["Figures"].startswith("Of epoch 2, the last; one training")


def rows_of(table):
    return dict(line.strip("| ").split(" | ") for line in table.splitlines() if line.count(" | ") == 1)


RESULTS = {"best": {"val": {"mIoU": 1.0}}, "best_epoch": 2, "selected_on": "val"}


def test_the_settings_that_were_not_the_defaults_are_told():
    usual = {**BASES["emb"].config().to_json(), "annotations_train": "/home/me/train.json"}
    names = ["setting", "seed", "epochs", "batch size", "lr", "optimizer", "schedule", "amp", "base"]
    assert [*rows_of(sections(usual, RESULTS)["Training"])] == names  # adam takes no weight decay
    changes = {"swap_words": 0.3, "lr_drop": 5, "schedule": "step", "warmup": 0.1, "clip_norm": 2.0, "dim": 64}
    of_the_machine = {"threads": 2, "device": "cpu", "workers": 3, "storage": "disk", "figure_queries": 0}
    changed = {**usual, **changes, **of_the_machine, "optimizer": "adamw", "durations": "/home/me/seconds.json"}
    told = sections(changed, RESULTS)
    rows = rows_of(told["Training"])
    assert {name: rows[name.replace("_", " ")] for name in changes} == {
        name: str(value) for name, value in changes.items()
    }
    assert rows["weight decay"] == "0.01"
    assert not {name.replace("_", " ") for name in of_the_machine} & set(rows)
    assert "| durations | seconds.json |" in told["Data"] and "home" not in str(told)
    rows = rows_of(sections({**changed, "schedule": "linear"}, RESULTS)["Training"])
    assert "lr drop" not in rows  # read by the other schedule alone


def test_the_card_of_an_adapted_run_tells_the_adaptation():
    flags = AdaptConfig(run=Path("/home/me/runs/hero"), annotations=("a=/home/me/a.json", "b=/home/me/b.json"), shots=8)
    earlier = ["/home/me/train.json", "/home/me/a-train.json"]
    settings = {
        **BASES["emb"].config().to_json(),
        "annotations_train": "/home/me/b-train.json",
        "swap_words": 0.3,
        "freeze_base": True,
        "adapted": {**flags.record(), "stage": "b", "past": earlier},
    }
    told = sections(settings, {**RESULTS, "best_epoch": 1, "selected_on": None})
    assert told["Figures"].startswith("After the adaptation; one, so no intervals.")
    assert "| annotations train | b-train.json |" in told["Data"]
    assert "| annotations of earlier trainings | train.json, a-train.json |" in told["Data"]
    rows = rows_of(told["Training"])
    expected = {
        "adapted from": "the run hero, its best checkpoint",
        "new words, one set after the other": "a, b",
        "shots of each": "8",
        "steps for each": "100",
        "distillation": "10.0",
        "rehearsal": "0.5",
        "interpolation": "1.0",
        "base": "emb, frozen as the run before left it",
    }
    assert {name: rows.get(name) for name in expected} == expected
    assert "epochs" not in rows and "swap words" not in rows  # of the run before, or not read here
    assert "home" not in str(told)
