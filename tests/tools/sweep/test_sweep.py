"""Several variants and seeds: what is run, what is skipped, and the arithmetic of the table."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest

from hero_plugin.integrations.scoring.intervals import compare, summary, trainings_table
from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.sweep import SweepConfig, collect, main, read_plan, sweep_markdown
from hero_plugin.integrations.training.run_folder import RunFolderError
from tests.resources import REPOSITORY, shared
from tests.screen import QUIET


def plan(runs, folder, **changes):
    file = folder / "sweep.json"
    made = {
        "output": str(folder / "runs"),
        "seeds": [0, 1],
        "settings": runs.files.settings(epochs=1, figure_queries=0),
        "variants": {"EMB": {"base_only": True}, "HERO without CMTR": {"hero": {"cmtr": False}}},
        **changes,
    }
    file.write_text(json.dumps(made))
    return file


@pytest.mark.parametrize(
    "experiment", sorted((REPOSITORY / "docs" / "experiments").glob("*.json")), ids=lambda p: p.stem
)
def test_the_experiments_of_the_docs_can_start(experiment, tmp_path, monkeypatch):
    annotations = shared("charades_cd", "charades_train.json")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "data").symlink_to(annotations.parent.parent)
    (tmp_path / "here" / "features" / "timelines").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    plan = read_plan(experiment, threads=1)
    assert plan.jobs and all(one != other for one, other in plan.pairs)


def test_a_variant_can_be_compared_with_several(runs, tmp_path):
    variants = {"EMB": {"base_only": True}, "HERO": {}, "without CMTR": {"hero": {"cmtr": False}}}
    compared = {"HERO": ["EMB", "without CMTR"], "without CMTR": "EMB"}
    read = read_plan(plan(runs, tmp_path, variants=variants, compare=compared), threads=1)
    assert read.pairs == [("HERO", "EMB"), ("HERO", "without CMTR"), ("without CMTR", "EMB")]


def test_every_variant_meets_every_seed_with_its_settings(runs, tmp_path):
    jobs = read_plan(plan(runs, tmp_path), threads=1).jobs
    assert [(job.variant, job.seed) for job in jobs] == [
        ("EMB", 0),
        ("EMB", 1),
        ("HERO without CMTR", 0),
        ("HERO without CMTR", 1),
    ]
    assert [job.config.base_only for job in jobs] == [True, True, False, False]
    assert [job.config.hero.cmtr for job in jobs] == [True, True, False, False]
    assert jobs[2].config.output.name == "hero-without-cmtr-seed0"


@pytest.mark.slow
def test_a_sweep_runs_what_is_missing_and_tabulates_all(runs, tmp_path):
    file = plan(runs, tmp_path, compare={"HERO without CMTR": "EMB"})
    assert main(SweepConfig(file, jobs=2, only=("EMB",)), QUIET) == 0
    assert json.loads((tmp_path / "runs/variants.json").read_text()) == {
        "EMB": {"runs": ["emb-seed0", "emb-seed1"], "compared_with": []},
        "HERO without CMTR": {
            "runs": ["hero-without-cmtr-seed0", "hero-without-cmtr-seed1"],
            "compared_with": ["EMB"],
        },
    }
    done = {path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()} - {"figures"}
    assert done == {"emb-seed0", "emb-seed1"}
    before = (tmp_path / "runs/emb-seed0/results.json").stat().st_mtime_ns
    assert main(SweepConfig(file, only=("EMB",)), QUIET) == 0
    assert (tmp_path / "runs/emb-seed0/results.json").stat().st_mtime_ns == before
    results = json.loads((tmp_path / "runs/results.json").read_text())
    row = results["sets"]["seen"]["EMB"]
    assert row["seeds"] == [0, 1] and results["differences"]["seen"] == []
    assert row["mIoU"]["mean"] == pytest.approx(sum(row["mIoU"]["values"]) / 2)
    assert "| EMB |" in (tmp_path / "runs/results.md").read_text()
    changed = plan(runs, tmp_path, variants={"EMB": {"base_only": True, "lr": 0.5}})
    for table_only in (False, True):
        with pytest.raises(RunFolderError, match=r"lr: was 0\.0005, now 0\.5"):
            main(SweepConfig(changed, table_only=table_only), QUIET)
    words = runs.files.root / "words.npz"
    settings = runs.files.settings(epochs=1, figure_queries=0, words=str(tmp_path / "words.npz"))
    shutil.copy(words, tmp_path / "words.npz")
    other = plan(runs, tmp_path, settings=settings, output=str(tmp_path / "other"), seeds=[0])
    assert main(SweepConfig(other, only=("EMB",)), QUIET) == 0
    with np.load(words) as table:
        np.savez(tmp_path / "words.npz", words=table["words"], vectors=table["vectors"][::-1])
    with pytest.raises(RunFolderError, match=r"files that its weights depend on are not .*words\.npz"):
        main(SweepConfig(other, only=("EMB",)), QUIET)
    file = plan(runs, tmp_path, compare={"HERO without CMTR": "EMB"})
    shutil.rmtree(tmp_path / "runs/emb-seed1")
    assert main(SweepConfig(file, table_only=True), QUIET) == 0
    row = json.loads((tmp_path / "runs/results.json").read_text())["sets"]["seen"]["EMB"]
    assert (row["seeds"], row["mIoU"]["std"]) == ([0], None)


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_go_on(runs, tmp_path, capsys):
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    file = plan(
        runs,
        tmp_path,
        seeds=[0],
        variants={"broken": {"annotations_train": str(broken)}, "EMB": {"base_only": True}},
    )
    assert main(SweepConfig(file), Screen()) == 1
    assert "failed: broken, seed 0" in capsys.readouterr().out
    assert (tmp_path / "runs/emb-seed0/results.json").exists()
    assert "broken.json" in (tmp_path / "runs/broken-seed0.log").read_text()


def test_the_table_holds_mean_and_sample_deviation(runs, tmp_path):
    read = read_plan(plan(runs, tmp_path), threads=1)
    for job, score in zip(read.jobs, (10.0, 14.0, 20.0, 20.0), strict=True):
        job.run.path.mkdir(parents=True)
        job.run.write_json(job.run.config_file, job.config.to_json())
        job.run.write_json(job.run.results_file, {"best": {"ood": dict.fromkeys(SCORES, score)}})
    results = collect(read, "best")
    assert results["sets"]["ood"]["EMB"]["R1@0.5"]["mean"] == 12.0
    assert results["sets"]["ood"]["EMB"]["R1@0.5"]["std"] == pytest.approx(8**0.5)
    assert "| ood | EMB | 2 | 12.00 ± 2.83 | 12.00 ± 2.83 |" in sweep_markdown(results)
    assert "| ood | HERO without CMTR | 2 | 20.00 ± 0.00 |" in sweep_markdown(results)
    assert "| set | model | seeds | R1@0.3 | R1@0.5 | R1@0.7 | mIoU |" in sweep_markdown(results)
    read.jobs[0].run.write_json(read.jobs[0].run.config_file, {**read.jobs[0].config.to_json(), "lr": 0.5})
    with pytest.raises(RunFolderError, match=r"lr: was 0\.5"):  # of another plan: not under this one's name
        collect(read, "best")


def test_differences_are_those_of_the_seeds_that_both_have():
    rows = {
        "EMB": {"seeds": [0, 1, 2], "mIoU": {"values": [10.0, 20.0, 30.0]}},
        "HERO": {"seeds": [2, 0, 7], "mIoU": {"values": [33.0, 11.0, 90.0]}},
        "one seed": {"seeds": [1], "mIoU": {"values": [20.0]}},
    }
    compared = compare(rows, [("HERO", "EMB"), ("absent", "EMB"), ("one seed", "EMB")], ["mIoU"])
    several, single = compared
    difference = several["mIoU"]
    assert (several["seeds"], difference["values"], difference["mean"]) == ([2, 0], [3.0, 1.0], 2.0)
    # Two values: t = 2 / 1 with one degree of freedom, whose distribution is Cauchy's.
    assert difference["p"] == pytest.approx(1 - 2 / math.pi * math.atan(2.0))
    assert difference["interval"] == pytest.approx([2 - 12.7062, 2 + 12.7062], abs=1e-3)
    assert single["mIoU"] == {"values": [0.0], "mean": 0.0, "interval": None, "p": None}
    usual = {name: {**row, "mIoU": {**row["mIoU"], "mean": 1.0, "std": None}} for name, row in rows.items()}
    text = sweep_markdown({"sets": {"val": usual}, "differences": {"val": compared}})
    assert "| val | HERO minus EMB | 2 | +2.00 [-10.7, +14.7], p 0.30 (+3.0, +1.0) |" in text
    assert "| val | one seed minus EMB | 1 | +0.00 (+0.0) |" in text


def test_differences_that_only_floats_tell_apart_have_no_interval():
    models = {
        "HERO": {0: {"mIoU": 30.3}, 1: {"mIoU": 40.3}},
        "EMB": {0: {"mIoU": 30.2}, 1: {"mIoU": 40.2}},
    }
    found = summary({"val": models}, [("HERO", "EMB")])
    (difference,) = found["differences"]["val"]
    assert difference["mIoU"]["interval"] is None and difference["mIoU"]["p"] is None
    assert found["best"] == {"val": {}}
    assert "+0.10 (+0.1, +0.1)" in trainings_table(found).markdown()


def test_the_best_is_better_than_every_other_by_its_interval():
    def scores(*values):
        return {seed: {"mIoU": value, "R1@0.5": 50.0 + seed} for seed, value in enumerate(values)}

    models = {"EMB": scores(40.0, 41.0, 42.0), "HERO": scores(50.0, 51.1, 52.0), "one": scores(48.0, 49.0, 50.1)}
    assert summary({"val": models}, [])["best"] == {"val": {"mIoU": "HERO"}}
    models["one"] = scores(47.0, 57.0, 49.0)  # lower on average, and by no interval
    assert summary({"val": models}, [])["best"] == {"val": {}}
    text = trainings_table(summary({"val": {name: models[name] for name in ("EMB", "HERO")}}, [])).markdown()
    assert "| val | HERO | 3 | 51.00 ± 1.00 | **51.03 ± 1.00** |" in text
    assert text.count("**") == 2


def test_official_figures_have_a_column_where_there_are_any():
    usual = {name: {"mean": 1.0, "std": None} for name in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")}
    rows = {"EMB": {**usual, "seeds": [0]}, "QD": {**usual, "MR-full-mAP": {"mean": 40.0, "std": 0.5}, "seeds": [0, 1]}}
    text = sweep_markdown({"sets": {"val": rows}})
    assert "| mIoU | MR-full-mAP |" in text
    assert "| 1.00 | - |" in text and "| 1.00 | 40.00 ± 0.50 |" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": [0]}, "a sweep has output, seeds"),
        ({"seeds": []}, "seeds must be"),
        ({"variants": {}}, "variants must name at least one"),
        ({"variants": {"A": {"levels": 2}}}, "variant 'A': no setting 'levels'"),
        ({"variants": {"A b": {}, "A-b": {}}}, "share a folder"),
        ({"compare": {"EMB": "HERO"}}, "compare says which variant minus which"),
        ({"compare": {"EMB": [["EMB"]]}}, "compare says which variant minus which"),
        ({"compare": ["EMB"]}, "compare says which variant minus which"),
    ],
)
def test_a_wrong_plan_is_told_before_anything_runs(runs, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        main(SweepConfig(plan(runs, tmp_path, **changes)), QUIET)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_variant_is_told(runs, tmp_path):
    with pytest.raises(UserError, match="no such variant; there are EMB, HERO without CMTR"):
        main(SweepConfig(plan(runs, tmp_path), only=("HERO",)), QUIET)
