"""Robustness of runs: the figures agree with the plain ones, pairs with their sets, models with each other."""

from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.records import Change, Record, Rewording, reworded_record
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.evaluation.evaluate import EvalConfig, main
from hero_plugin.integrations.evaluation.robustness import (
    Draws,
    Model,
    answers_of,
    find_runs,
    measure_robustness,
    models_of,
    references,
)
from hero_plugin.integrations.evaluation.robustness_report import comparison_table, groups_figure
from hero_plugin.integrations.scoring.metrics import SCORES, UNSEEN
from hero_plugin.integrations.scoring.open_vocabulary import training_vocabulary, unseen_words
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.run_folder import RunFolder, RunFolderError
from tests.screen import QUIET


def evaluate(tmp_path, *runs: RunFolder, **flags: object):
    """Scores, and the report on robustness."""
    path = tmp_path / "scores.json"
    few = {"resamples": 100, "device": "cpu", **flags}
    scores = main(EvalConfig(run=tuple(run.path for run in runs), json=path, **few), QUIET)
    return scores, json.loads(path.read_text()).get("drift")


def values(figures):
    return {name: figure["value"] for name, figure in figures.items()}


def unseen_numbers(runs, path) -> list[int]:
    """Of each query: how many words no training query has."""
    trained = training_vocabulary(tokenize(each.sentence) for each in read_annotations(runs.files.root / "train.json"))
    return [len(unseen_words(tokenize(record.sentence), trained)) for record in read_annotations(path)]


@pytest.fixture
def rewordings(runs, tmp_path):
    """Rewordings of the seen test queries: each said in capitals, which changes no word, and every other one longer."""
    made = []
    for number, record in enumerate(read_annotations(runs.files.root / "seen.json")):
        loud = record.sentence.upper()
        kind, sentence = ("spelling", loud) if number % 2 == 0 else ("synonym", f"zzz qqq {loud}")
        change = Change(record.sentence, sentence, kind, part="thing" if number % 2 == 0 else "action")
        made.append(reworded_record(record, Rewording(sentence, (change,)), 1, "test"))
    write_annotations(made, tmp_path / "ov.json", format="captions")
    return tmp_path / "ov.json"


def test_groups_are_a_partition_and_the_whole_has_the_usual_scores(runs, tmp_path):
    scores, report = evaluate(tmp_path, runs.hero)
    for name, found in report["sets"].items():
        whole, *groups = found["groups"]
        by_words = [part for part in groups if part["by"] == "unseen words"]
        assert sum(part["queries"] for part in by_words) == whole["queries"]
        (figures,) = whole["models"].values()
        assert values(figures) == pytest.approx({score: scores[name][score] for score in SCORES}, abs=1e-3)
        means = [part["queries"] * values(*part["models"].values())["mIoU"] for part in by_words if part["queries"]]
        assert sum(means) / whole["queries"] == pytest.approx(values(figures)["mIoU"], abs=1e-2)
        counts = Counter(UNSEEN[min(number, 2)] for number in unseen_numbers(runs, runs.files.root / f"{name}.json"))
        assert {part["group"]: part["queries"] for part in by_words} == {group: counts[group] for group in UNSEEN}


def test_models_stand_side_by_side_and_differ_by_their_difference(runs, tmp_path):
    scores, report = evaluate(tmp_path, runs.base, runs.hero)
    assert set(scores) == {f"{run.path}: {name}" for run in (runs.base, runs.hero) for name in ("seen", "unseen")}
    assert {name: about["compared_with"] for name, about in report["models"].items()} == {
        "EMB": None,
        "HERO-EMB": "EMB",
    }
    whole = report["sets"]["unseen"]["groups"][0]
    base, hero = values(whole["models"]["EMB"]), values(whole["models"]["HERO-EMB"])
    assert base == pytest.approx({score: scores[f"{runs.base.path}: unseen"][score] for score in SCORES}, abs=1e-3)
    assert values(whole["differences"]["HERO-EMB"]) == pytest.approx(
        {score: hero[score] - base[score] for score in SCORES}, abs=2e-3
    )
    for figure in whole["differences"]["HERO-EMB"].values():
        assert figure["low"] <= figure["high"]


def test_pairs_are_the_originals_and_their_rewordings(runs, rewordings, tmp_path):
    seen = runs.files.root / "seen.json"
    scores, report = evaluate(tmp_path, runs.hero, annotations=(f"seen={seen}", f"ov={rewordings}"))
    assert set(scores) == {"seen", "ov"}
    assert report["sets"]["seen"]["pairs"] == []
    whole, *groups = report["sets"]["ov"]["pairs"]
    (figures,) = whole["models"].values()
    assert values(figures["original"]) == pytest.approx({s: scores["seen"][s] for s in SCORES}, abs=1e-3)
    assert values(figures["reworded"]) == pytest.approx({s: scores["ov"][s] for s in SCORES}, abs=1e-3)
    by_change = {part["group"]: part for part in groups if part["by"] == "change"}
    assert set(by_change) == {"spelling", "synonym"}
    (same,) = by_change["spelling"]["models"].values()  # the same words: the same answer
    assert values(same["change"]) == dict.fromkeys(SCORES, 0)
    assert same["consistency"]["overlap"] == {"value": 100, "low": 100, "high": 100}
    by_part = {part["group"]: part["queries"] for part in groups if part["by"] == "part"}
    assert by_part == {"thing": by_change["spelling"]["queries"], "action": by_change["synonym"]["queries"]}
    by_words = {part["group"]: part["queries"] for part in groups if part["by"] == "unseen words"}
    assert by_words["2+"] == sum(number >= 2 for number in unseen_numbers(runs, rewordings)) >= 6


def test_pairs_can_be_left_out(runs, rewordings, tmp_path):
    _, report = evaluate(tmp_path, runs.base, annotations=(str(rewordings),), pairs=False)
    assert report["sets"]["ov"]["pairs"] == []
    _, report = evaluate(tmp_path, runs.base, annotations=(str(rewordings),), resamples=0)
    assert report is None


def test_tables_are_whole_and_figures_are_drawn(runs, rewordings, tmp_path):
    stream = io.StringIO()
    config = EvalConfig(
        run=(runs.base.path, runs.hero.path),
        annotations=(f"ov set={rewordings}",),
        figures=tmp_path / "drawn",
        resamples=100,
        device="cpu",
    )
    main(config, Screen(Console(file=stream, width=160)))
    text = stream.getvalue()
    for said in (
        "ov set, by drift",
        "the same pairs in both wordings",
        "does the answer move?",
        "minus EMB",
        "videos]",
    ):
        assert said in text
    assert "…" not in text
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["ov_set-drift.png", "ov_set-pairs.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "drawn").iterdir())


def test_flags_that_do_not_go_together_are_said(runs, tmp_path):
    with pytest.raises(UserError, match="writes those of one run, got 2"):
        evaluate(tmp_path, runs.base, runs.hero, predictions=tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="--resamples must be at least 100"):
        evaluate(tmp_path, runs.base, resamples=10)
    with pytest.raises(UserError, match="--seed must not be negative, got -1"):
        evaluate(tmp_path, runs.base, seed=-1)
    other = run_folder(runs, tmp_path / "other", annotations_test=(f"seen={runs.files.root / 'seen.json'}",))
    with pytest.raises(UserError, match=r"other has the test sets seen, .*base seen, unseen; .* with --annotations"):
        evaluate(tmp_path, runs.base, other)
    with pytest.raises(UserError, match="--resamples 0 leaves out"):
        evaluate(tmp_path, runs.base, resamples=0, figures=tmp_path)


def run_folder(runs, path, **settings: object) -> RunFolder:
    """A finished run as far as its settings say."""
    run = RunFolder.create(path, runs.config(**settings).to_json(), resume=False, overwrite=False)
    run.write_json(run.results_file, {})
    return run


def test_runs_that_differ_in_their_seed_are_one_model(runs, tmp_path):
    seeds = [run_folder(runs, tmp_path / f"emb-seed{seed}", seed=seed, base_only=True) for seed in (2, 0, 1)]
    heroes = [run_folder(runs, tmp_path / f"hero-seed{seed}", seed=seed) for seed in (0, 1)]
    small = [run_folder(runs, tmp_path / "small", seed=0, dim=8)]
    models = models_of([*seeds, *heroes, *small])
    assert [(model.name, model.seeds) for model in models] == [("EMB", (0, 1, 2)), ("hero", (0, 1)), ("small", (0,))]
    assert len(models_of([*seeds, *heroes], pool=False)) == 5
    other = heroes[1].config()
    train = str(other["annotations_train"])
    heroes[1].write_json(heroes[1].config_file, {**other, "annotations": {**other["annotations"], train: "another"}})
    assert [model.seeds for model in models_of(heroes)] == [(0,), (1,)]  # under one path, and not the same queries
    copied = run_folder(runs, tmp_path / "copy", seed=0, base_only=True)
    with pytest.raises(UserError, match="the same settings and the same seed"):
        models_of([*seeds, copied])


def test_a_sweeps_folder_stands_for_its_finished_runs(runs, tmp_path):
    for seed in (0, 1):
        run_folder(runs, tmp_path / f"emb-seed{seed}", seed=seed)
    assert [run.path.name for run in find_runs([tmp_path], QUIET)] == ["emb-seed0", "emb-seed1"]
    (tmp_path / "emb-seed1" / "results.json").unlink()
    assert [run.path.name for run in find_runs([tmp_path], QUIET)] == ["emb-seed0"]
    with pytest.raises(UserError, match="named twice"):
        find_runs([tmp_path, tmp_path / "emb-seed0"], QUIET)
    (tmp_path / "emb-seed0" / "results.json").unlink()
    with pytest.raises(RunFolderError, match="none of the runs in it is finished"):
        find_runs([tmp_path], QUIET)


def test_runs_of_a_sweep_have_its_names_and_are_compared_as_it_says(runs, tmp_path):
    variants = {"Plain": {"base_only": True}, "HERO": {}, "HERO, 2 levels": {"hero": {"levels": 2}}}
    compared = {"Plain": [], "HERO": ["Plain"], "HERO, 2 levels": ["absent", "HERO", "Plain"]}
    noted = {}
    for place, (name, changes) in enumerate(variants.items()):
        made = [run_folder(runs, tmp_path / f"{place}-seed{seed}", seed=seed, **changes) for seed in (0, 1)]
        noted[name] = {"runs": [run.path.name for run in made], "compared_with": compared[name]}
    (tmp_path / "variants.json").write_text(json.dumps(noted))
    models = models_of(find_runs([tmp_path], QUIET))
    assert [model.name for model in models] == list(variants)
    assert references(models) == {"HERO": "Plain", "HERO, 2 levels": "HERO"}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.booleans(), min_size=24, max_size=24), st.integers(1, 12))
def test_intervals_of_differences_are_possible_and_within_their_panel(right, videos):
    """Also with two trainings and few videos, whose intervals reach beyond what any difference can be."""
    records = [Record(str(number), f"v{number % videos}", "a query", ((2.0, 6.0),), 10.0) for number in range(12)]

    def model(name, marks):
        moments = np.where(np.array(marks)[:, None], (2.0, 6.0), (7.0, 9.0))
        found = [answers_of(records, each, lambda record: ()) for each in (moments, moments[::-1])]
        return Model(name, (name, name), (0, 1), answers={"test": found})

    report = measure_robustness([model("a", right[:12]), model("b", right[12:])], Draws(100))
    ends = groups_figure(report, "test").axes[len(SCORES)].get_ylim()
    for part in report["sets"]["test"]["groups"]:
        low, high = (part["differences"]["b"][SCORES[0]][end] for end in ("low", "high"))
        assert low is None or max(-100, ends[0]) <= low <= high <= min(100, ends[1])


def test_seeds_are_pooled(runs, tmp_path):
    """The same training under two seeds: every figure is that of one, and drawing trainings adds nothing."""
    copies = []
    for seed in (0, 1):
        run = run_folder(runs, tmp_path / "pool" / f"emb-seed{seed}", seed=seed, base_only=True)
        for name in ("best.pt", "vocabulary.json"):
            (run.path / name).symlink_to(runs.base.path / name)
        copies.append(run)
    _, report = evaluate(tmp_path, *copies)
    _, alone = evaluate(tmp_path, runs.base)
    assert report["interval"]["drawn"] == "videos and training seeds"
    assert report["models"]["EMB"]["seeds"] == [0, 1]
    for name, found in report["sets"].items():
        for part, single in zip(found["groups"], alone["sets"][name]["groups"], strict=True):
            for figure in part["models"]["EMB"].values():
                assert (figure.pop("std"), figure.pop("values")) == (
                    (None, [None] * 2) if figure["value"] is None else (0, [figure["value"]] * 2)
                )
            assert part == single


def answering(name: str, right: dict[int, list[bool]]) -> Model:
    """A model whose trainings, by seed, are right on these of the queries, and miss the others."""
    records = [Record(str(number), f"v{number}", "a query", ((2.0, 6.0),), 10.0) for number in range(12)]
    moments = [np.where(np.array(each)[:, None], (2.0, 6.0), (7.0, 9.0)) for each in right.values()]
    answers = {"test": [answers_of(records, each, None) for each in moments]}
    return Model(name, tuple(f"{name}-{seed}" for seed in right), tuple(right), answers=answers)


ALL, HALF, FEW_RIGHT = [True] * 12, [True, False] * 6, [True] + [False] * 11


def test_a_difference_is_over_the_seeds_that_both_have():
    hero = answering("HERO", {0: ALL, 1: HALF, 7: FEW_RIGHT})
    base = answering("base", {0: HALF, 1: HALF})
    report = measure_robustness([base, hero], Draws(100))
    assert report["notes"] == [
        "HERO minus base is over the seeds 0, 1 of both: HERO has seeds 0, 1, 7; base has seeds 0, 1"
    ]
    (whole,) = report["sets"]["test"]["groups"]  # nobody knows which words were seen
    assert whole["differences"]["HERO"]["mIoU"]["value"] == 25
    assert whole["differences"]["HERO"]["mIoU"]["values"] == [50, 0]
    assert whole["models"]["HERO"]["mIoU"]["values"] == pytest.approx([100, 50, 100 / 12], abs=1e-3)
    alone = measure_robustness([answering("base", {7: HALF}), hero], Draws(100))
    assert alone["notes"] == ["HERO minus base is not paired by seed: HERO has seeds 0, 1, 7; base has seeds 7"]
    one, other = (alone["sets"]["test"]["groups"][0]["models"][name]["mIoU"]["value"] for name in ("HERO", "base"))
    assert alone["sets"]["test"]["groups"][0]["differences"]["HERO"]["mIoU"]["value"] == pytest.approx(one - other)


def test_only_a_difference_whose_interval_excludes_0_makes_a_best():
    clear = measure_robustness([answering("base", {0: FEW_RIGHT}), answering("HERO", {0: ALL})], Draws(200))
    assert clear["sets"]["test"]["groups"][0]["best"] == dict.fromkeys(SCORES, "HERO")
    more = [True, True, *[False] * 10]
    close = measure_robustness([answering("base", {0: FEW_RIGHT}), answering("HERO", {0: more})], Draws(200))
    assert close["sets"]["test"]["groups"][0]["best"] == {}
    text = comparison_table(clear).markdown()
    assert "| test | all | 12 | 12 | HERO | **100.0 [100.0, 100.0]** |" in text
    assert "+91.7 [" in text and "]* |" in text


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([("emb", True)], {}),
        ([("emb", True), ("emb", False)], {"1": "0"}),
        ([("emb", False), ("emb", True)], {"0": "1"}),
        ([("emb", True), ("qd", True), ("emb", False), ("qd", False)], {"2": "0", "3": "1"}),
        ([("emb", True), ("qd", True)], {"1": "0"}),
        ([("emb", False), ("emb", False)], {"1": "0"}),
        ([("", True), ("", True), ("", True)], {"1": "0", "2": "0"}),
    ],
)
def test_hero_is_compared_with_its_base(kinds, expected):
    models = [Model(str(place), (str(place),), base=base, plain=plain) for place, (base, plain) in enumerate(kinds)]
    assert references(models) == expected


def test_models_must_have_answered_the_same_queries(runs, tmp_path):
    records = read_annotations(runs.files.root / "seen.json")
    moments = np.array([record.moments[0] for record in records])

    def model(name, count, unseen):
        found = answers_of(records[:count], moments[:count], lambda record: unseen)
        return Model(name, (name,), answers={"seen": [found]})

    with pytest.raises(UserError, match="b answered 3 queries, a 5, and not the same ones"):
        measure_robustness([model("a", 5, ()), model("b", 3, ())], Draws(100))
    other = model("b", 5, ())
    moved = [record.replace(moments=((0.0, 0.5),)) for record in records[:5]]
    other.answers["seen"] = [answers_of(moved, moments[:5], lambda record: ())]
    with pytest.raises(UserError, match="not the same ones of the same moments"):
        measure_robustness([model("a", 5, ()), other], Draws(100))
    report = measure_robustness([model("a", 5, ()), model("b", 5, ("crate",))], Draws(100))
    assert "5 queries have another number of unseen words" in report["notes"][0]
    assert report["sets"]["seen"]["groups"][1]["queries"] == 5
    assert values(report["sets"]["seen"]["groups"][0]["models"]["a"])["mIoU"] == 100
