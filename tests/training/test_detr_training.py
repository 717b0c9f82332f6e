"""Moment-DETR, QD-DETR and TR-DETR through the whole training: what is learned, kept, resumed, scored and written."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

from hero_plugin import HeroModel
from hero_plugin.integrations.data import Record
from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.words import WordVectors, tokenize
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.scoring.submissions import read_submission
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.support.settings import ConfigError, parse
from hero_plugin.integrations.tools.bench.upstream import load_upstream_detr
from hero_plugin.integrations.tools.sweep import SweepConfig, read_plan
from hero_plugin.integrations.tools.sweep import main as sweep
from hero_plugin.integrations.training.bases import BASES, config_from
from hero_plugin.integrations.training.batching import predict_set
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.detr import DetrTask
from hero_plugin.integrations.training.distributed import autocast
from hero_plugin.integrations.training.engine import Trainer
from hero_plugin.integrations.training.optim import build_optimizer, step_decay
from hero_plugin.integrations.training.queries import WordQueries
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.train import main
from tests.resources import upstream
from tests.screen import QUIET
from tests.training.files import detr_settings, query, write_published

DETRS = ("moment_detr", "qd_detr", "tr_detr")
LENGTH = 2.0
"""Seconds per clip of the synthetic data."""


class Killed(BaseException):
    """Nothing in the code under test may catch this, as nothing catches SIGKILL."""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def trained(runs, tmp_path_factory):
    """QD-DETR with HERO on word vectors, trained; nobody writes into it."""
    folder = tmp_path_factory.mktemp("detr") / "run"
    settings = detr_settings(runs.files, "qd_detr", output=str(folder), epochs=3, compare=str(runs.base.path))
    return main(config_from(settings, "test"), QUIET)


@pytest.fixture
def built(runs):
    """A function that builds the task of a base, with its training examples."""

    def build(base, **changes):
        config = config_from(detr_settings(runs.files, base, output="unused", **changes), "test").checked()
        data = BASES[base].read(config, {"train": config.annotations_train})
        bank = data.bank("auto", 1.0, QUIET)
        vocabulary = BASES[base].vocabulary(config, data)
        torch.manual_seed(0)
        task = BASES[base].new_task(config, data, bank, vocabulary, torch.device("cpu"))
        return config, task, BASES[base].examples(config, data, "train", bank, vocabulary, for_training=True)

    return build


@pytest.mark.parametrize("base", DETRS)
@pytest.mark.parametrize("base_only", [True, False])
def test_a_step_sums_the_weighted_losses_and_reaches_every_parameter(built, base, base_only):
    _, task, examples = built(base, base_only=base_only)
    assert isinstance(task.model, HeroModel) is not base_only
    losses = task.losses(task.model.train(), task.collate(examples[:8]), 0)
    weights = task.criterion.weight_dict
    assert set(weights) <= set(losses)
    assert {"loss_relevance", "loss_consistency"} <= set(losses) or base_only
    torch.testing.assert_close(losses["loss"], sum(losses[name] * weight for name, weight in weights.items()))
    losses["loss"].backward()
    idle = {name for name, each in task.model.named_parameters() if each.requires_grad and each.grad is None}
    assert {name for name in idle if "txt_position_embed" not in name} == set()  # used with use_txt_pos alone


@pytest.mark.parametrize("base", DETRS)
def test_bf16_gives_finite_losses_and_gradients(built, base):
    _, task, examples = built(base)
    with autocast("bf16", torch.device("cpu")):
        losses = task.losses(task.model.train(), task.collate(examples[:6]), 0)
    losses["loss"].backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_giou"].dtype == torch.float32
    grads = [each.grad for each in task.model.parameters() if each.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.slow
@pytest.mark.parametrize("base", DETRS)
def test_it_learns_a_handful_of_queries_by_heart(built, tmp_path, base):
    config, task, examples = built(
        base,
        base_only=True,
        epochs=2,
        lr=2e-3,
        hidden_dim=32,
        clip_norm=1.0,
        dropout=0.0,
        input_dropout=0.0,
        eval_every=2,
    )
    run = RunFolder.create(tmp_path / "run", {}, resume=False, overwrite=False)
    trainer = Trainer(task, config, examples[:8] * 30, run, QUIET)
    trainer.fit({"train": examples[:8]}, select=None)
    history = run.history()
    assert history[-1]["curve"][-1][1] < 0.6 * history[0]["curve"][0][1]
    assert history[-1]["metrics"]["train"]["mIoU"] > 45


def test_a_prediction_is_ranked_and_inside_its_video(built):
    _, task, examples = built("qd_detr")
    batch = task.collate(examples[:6])
    prediction = task.predict(task.model.eval(), batch)
    assert prediction.moments.shape == (6, 6, 2)
    assert (prediction.scores.diff(dim=1) <= 0).all()
    assert (prediction.moments >= 0).all()
    assert (prediction.moments <= batch["durations"][:, None, None]).all()
    assert not prediction.relevance[batch["src_vid_mask"] == 0].any()
    for saliency, relevance, clips in zip(prediction.saliency, prediction.relevance, batch["clips"], strict=True):
        assert relevance[:clips].min() == 0 and relevance[:clips].max().item() == pytest.approx(1)
        assert torch.equal(saliency[:clips].argsort(), relevance[:clips].argsort())
    outputs = task.model(*(batch[name] for name in ("src_txt", "src_txt_mask", "src_vid", "src_vid_mask")))
    best = outputs["pred_logits"].softmax(-1)[..., 0].argmax(1)
    center, width = outputs["pred_spans"][torch.arange(6), best].unbind(-1)
    expected = torch.stack([center - width / 2, center + width / 2], -1).clamp(0, 1) * batch["durations"][:, None]
    torch.testing.assert_close(prediction.moments[:, 0], expected)
    rounded = DetrTask(task.model, task.criterion, task.collate, clip_length=2.0).predict(task.model, batch).moments
    assert (rounded % 2 == 0).all()
    assert (rounded - prediction.moments).abs().max() <= 1
    shorter = {**batch, "durations": batch["durations"] - 0.5}  # the last clip ends behind the video
    task = DetrTask(task.model, task.criterion, task.collate, clip_length=2.0)
    assert (task.predict(task.model, shorter).moments <= shorter["durations"][:, None, None]).all()


def test_a_run_folder_holds_what_embs_does(trained, runs):
    names = {path.name for path in runs.hero.path.iterdir()}
    assert {path.name for path in trained.path.iterdir()} == names
    assert {path.name for path in trained.figures.iterdir()} == {"losses.png", "recall.png", "levels.png", "queries"}
    assert trained.config()["base"] == "qd_detr"
    assert set(trained.history()[0]["gauges"]) == {"level_weights"}
    assert trained.history()[-1]["losses"]["loss"] < trained.history()[0]["losses"]["loss"]
    assert trained.history()[-1]["lr"] == 1e-3


def test_scores_are_those_of_the_training_and_predictions_a_submission(trained, runs, tmp_path):
    expected = {name: scores for name, scores in trained.results()["best"].items() if name != "val"}
    assert evaluate(EvalConfig(run=(trained.path,), device="cpu"), QUIET) == expected
    path = runs.files.root / "seen.json"
    flags = {"annotations": (str(path),), "predictions": tmp_path / "out.jsonl", "device": "cpu"}
    evaluate(EvalConfig(run=(trained.path,), **flags), QUIET)
    submission = read_submission(tmp_path / "out.jsonl", read_annotations(path))
    assert len(submission.lines) == len(read_annotations(path))
    assert all(len(line["pred_relevant_windows"]) == 6 for line in submission.lines)


def test_a_submission_is_of_one_set(trained, tmp_path):
    evaluate(EvalConfig(run=(trained.path,), predictions=tmp_path / "out.jsonl", device="cpu"), QUIET)
    assert {path.name for path in tmp_path.iterdir()} == {"out-seen.jsonl", "out-unseen.jsonl"}


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_bits_of_one_that_was_not(published, tmp_path, monkeypatch):
    settings = published.settings("tr_detr", checkpoint_steps=1, hidden_dim=8, batch_size=3)
    whole = main(config_from({**settings, "output": str(tmp_path / "whole")}, "test"), QUIET)
    output = {**settings, "output": str(tmp_path / "killed")}
    losses, steps = DetrTask.losses, 0

    def dies(self, *args):
        nonlocal steps
        steps += 1
        if steps in (3, 7):
            raise Killed
        return losses(self, *args)

    monkeypatch.setattr(DetrTask, "losses", dies)
    for resume in (False, True):
        with pytest.raises(Killed):
            main(config_from({**output, "resume": resume}, "test"), QUIET)
    resumed = main(config_from({**output, "resume": True}, "test"), QUIET)
    for name in ("last", "best"):
        ours, theirs = (load_checkpoint(getattr(run, name))["model"] for run in (resumed, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert resumed.results()["best"] == whole.results()["best"]


@pytest.mark.slow
def test_published_features_are_scored_officially_and_chosen_on_it(published, tmp_path):
    run = main(config_from(published.settings("qd_detr", output=str(tmp_path / "run"), epochs=3), "test"), QUIET)
    history = run.history()
    scores = [line["metrics"]["val"] for line in history]
    assert {*SCORES, "MR-full-mAP", "MR-full-R1@0.5", "HL-min-VeryGood-mAP"} <= set(scores[0])
    merits = [each["MR-full-mAP"] for each in scores]
    assert run.results()["best_epoch"] == 1 + merits.index(max(merits))
    flags = {"predictions": tmp_path / "out.jsonl", "device": "cpu"}
    again = evaluate(EvalConfig(run=(run.path,), **flags), QUIET)
    assert again["test"] == run.results()["best"]["test"]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(time % 2 == 0 for line in lines for window in line["pred_relevant_windows"] for time in window[:2])
    config = config_from(run.config(), "run")
    assert config.seconds_per_clip == 2.0
    (missing := published.root / "text" / "qid3.npz").rename(published.root / "aside")
    try:
        with pytest.raises(DataError, match=r"query 3: no qid3\.npz"):
            main(config_from(published.settings("qd_detr", output=str(tmp_path / "other")), "test"), QUIET)
    finally:
        (published.root / "aside").rename(missing)


@pytest.mark.slow
def test_a_level_is_chosen_by_what_val_and_its_rewordings_both_have(published, tmp_path):
    lines = [json.loads(line) for line in (published.root / "val.jsonl").read_text().splitlines()]
    unscored = ("relevant_clip_ids", "saliency_scores")
    bare = [{name: value for name, value in line.items() if name not in unscored} for line in lines]
    (tmp_path / "reworded.jsonl").write_text("".join(json.dumps(line) + "\n" for line in bare))
    chosen = {"choose_level": True, "annotations_reworded": str(tmp_path / "reworded.jsonl")}
    given = published.settings("qd_detr", output=str(tmp_path / "run"), epochs=1, **chosen)
    results = main(config_from(given, "test"), QUIET).results()
    best = results["best"]["val"]
    assert "MR-full-mAP" in best
    usual = sum(best[name] for name in SCORES)  # the same queries: the mean over both sets is the merit of one
    levels = "+".join(map(str, results["levels"]["answering"]))
    assert results["levels"]["chosen_by"][levels] == pytest.approx(usual)


def test_a_set_that_is_scored_officially_in_part_is_told(published, tmp_path, monkeypatch):
    lines = [json.loads(line) for line in (published.root / "val.jsonl").read_text().splitlines()]
    lines[1]["relevant_clip_ids"], lines[1]["saliency_scores"] = [10**6], [[4, 4, 4]]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = config_from(published.settings("qd_detr", output=str(tmp_path / "run")), "test")
    base, screen, said = BASES["qd_detr"], Screen(quiet=True), []
    monkeypatch.setattr(screen, "say", said.append)
    base.read(config, {"train": tmp_path / "val.jsonl", "val": published.root / "val.jsonl"}, screen)
    assert not said
    base.read(config, {"val": tmp_path / "val.jsonl"}, screen)
    assert (
        f"val: 1 of {len(lines)} queries, {lines[1]['qid']} first, have no labels that QVHighlights scores" in said[0]
    )


FINISHED = SimpleNamespace(poll=lambda: 0, returncode=0)
"""A process that is done."""


def test_one_sweep_covers_several_bases(runs, tmp_path, monkeypatch):
    shared = {name: value for name, value in runs.files.settings(epochs=1, figure_queries=0).items() if name != "dim"}
    small = {name: value for name, value in detr_settings(runs.files, "moment_detr").items() if name not in shared}
    plan = {
        "output": str(tmp_path / "runs"),
        "seeds": [0],
        "settings": shared,
        "variants": {"EMB": {"base_only": True, "dim": 16}, "Moment-DETR": {**small, "base_only": True}},
    }
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(plan))
    started = []
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: started.append(command) or FINISHED)
    assert sweep(SweepConfig(file, jobs=2), QUIET) == 0
    assert [command[4] for command in started] == ["emb", "moment_detr"]
    for command in started:  # what the process would train
        config = parse(BASES[command[4]].config, "train", command[5:])
        assert (config.base, config.base_only) == (command[4], True)
    file.write_text(json.dumps({**plan, "variants": {"QD": {"base": "qd_detr", "drop_rate": 0.1}}}))
    with pytest.raises(UserError, match=r"variant 'QD': no setting 'drop_rate'"):
        read_plan(file, threads=1)
    file.write_text(json.dumps({**plan, "variants": {"QD": {"base": "qd-detr"}}}))
    with pytest.raises(UserError, match="base must be one of emb, moment_detr"):
        read_plan(file, threads=1)


def test_a_run_is_resumed_as_what_it_is(trained):
    argv = ("--output", str(trained.path), "--resume")
    config = parse(BASES["qd_detr"].config, "train qd_detr", argv)
    assert config.checked().to_json() == {
        key: value for key, value in trained.config().items() if key in config.to_json()
    }
    with pytest.raises(ConfigError, match="these are settings of qd_detr, not of emb"):
        parse(BASES["emb"].config, "train emb", argv)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"words": None}, "give one of --words"),
        ({"query_features": "."}, "give one of --words"),
        ({"clip_length": -1}, "--clip-length must be 0 or more"),
        ({"max_words": 0}, "--max-words must be at least 1"),
    ],
)
def test_impossible_flags_are_told(runs, changes, said):
    with pytest.raises(ConfigError, match=said):
        config_from(detr_settings(runs.files, "qd_detr", output="x", **changes), "test").checked()


def test_sizes_that_do_not_fit_are_told(built):
    with pytest.raises(ConfigError, match="nheads must divide hidden_dim"):
        built("qd_detr", nheads=3)


def test_a_run_of_another_kind_is_told(trained, runs, tmp_path):
    for path in (runs.files.root / "features").iterdir():
        np.save(tmp_path / path.name, np.zeros((5, 3), np.float32))
    with pytest.raises(UserError, match="trained on features of width 10, these have 3"):
        evaluate(EvalConfig(run=(trained.path,), features=(tmp_path,)), QUIET)
    with pytest.raises(UserError, match="--query-features is for the DETRs"):
        evaluate(EvalConfig(run=(runs.base.path,), query_features=tmp_path), QUIET)


def test_words_are_looked_up_and_unknown_ones_are_zeros():
    vectors = WordVectors(["a", "door"], np.array([[3.0, 4.0], [0.0, 2.0]], np.float32))
    words, mask = WordQueries(vectors, tokenize, 3, True).batch([query("A zebra's door opens"), query("door")])
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    np.testing.assert_allclose(words[0], [[0.6, 0.8], [0, 0], [0, 1]], atol=1e-5)
    np.testing.assert_allclose(words[1], [[0, 1], [0, 0], [0, 0]], atol=1e-5)
    plain, _ = WordQueries(vectors, tokenize, 3, False).batch([query("door")])
    assert plain.tolist() == [[[0.0, 2.0]]]


def test_queries_with_levels_side_by_side_train_hero_without_an_encoder_of_its_own(published, tmp_path):
    hero = {"levels": 2, "levels_from": "input"}
    run = main(config_from(published.settings("qd_detr", output=str(tmp_path / "run"), hero=hero), "test"), QUIET)
    weights = load_checkpoint(run.best)["model"]
    assert weights["base.input_txt_proj.0.LayerNorm.weight"].shape == (4,)  # of 8 numbers per token
    assert not [name for name in weights if name.startswith("hero.hem.")]
    scores = evaluate(EvalConfig(run=(run.path,), device="cpu", resamples=0), QUIET)
    assert scores["test"] == pytest.approx(run.results()["best"]["test"])

    wrong = published.settings("qd_detr", output=str(tmp_path / "other"), hero={"levels": 3, "levels_from": "input"})
    with pytest.raises(UserError, match="features of width 8 are not 3 levels side by side"):
        main(config_from(wrong, "test"), QUIET)


@pytest.mark.parametrize("base", ["qd_detr", "emb"])
def test_a_table_of_words_has_no_levels(runs, base):
    settings = detr_settings(runs.files, base) if base == "qd_detr" else runs.files.settings(base=base)
    hero = {"levels": 2, "levels_from": "input"}
    with pytest.raises(ConfigError, match=r"--hero\.levels-from input reads --query-features of several layers"):
        config_from({**settings, "output": "x", "hero": hero}, "test").checked()


NAMES = {
    "n_epoch": "epochs",
    "bsz": "batch_size",
    "eval_bsz": "eval_batch_size",
    "wd": "weight_decay",
    "grad_clip": "clip_norm",
    "max_v_l": "max_clips",
    "max_q_l": "max_words",
}
SCRIPTS = {"tr_detr": {"seed": 2017, "vtc_loss_coef": 0.3, "ctc_loss_coef": 0.5}}
"""What the training script of the paper sets otherwise."""


@pytest.mark.parametrize(("base", "clone"), [*zip(DETRS, ("moment_detr", "QD-DETR", "TR-DETR"), strict=True)])
def test_the_defaults_are_the_authors_recipe(base, clone):
    with mock.patch.dict("sys.modules", {"tqdm": SimpleNamespace(tqdm=None), "pandas": ModuleType("pandas")}):
        options = load_upstream_detr(upstream(clone), f"{base}.config").BaseOptions()
    options.initialize()
    parser: ArgumentParser = options.parser
    theirs = {NAMES.get(name, name.lower()): value for name, value in vars(parser.parse_args([])).items()}
    ours = vars(BASES[base].config())
    compared = (set(ours) & set(theirs)) - {"resume", "device", "clip_length"}
    assert len(compared) > 25
    assert {name: ours[name] for name in compared} == {
        name: SCRIPTS.get(base, {}).get(name, theirs[name]) for name in compared
    }
    assert (ours["schedule"], ours["optimizer"], ours["eval_every"]) == ("step", "adamw_all", 5)


def test_the_step_schedule_and_the_optimizer_are_upstreams():
    model = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(model, "adamw_all", 1e-4, 1e-4)
    (group,) = optimizer.param_groups
    assert (len(group["params"]), group["weight_decay"]) == (2, 1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    for epoch in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4 * step_decay(epoch * 5 + 4, 15), rel=1e-12)
        optimizer.step()
        scheduler.step()
    assert [step_decay(step, 100, 4) for step in (0, 2, 4, 99)] == [0.0, 0.5, 1.0, 1.0]


@torch.no_grad()
def test_moments_of_a_cut_video_are_shares_of_what_was_seen(built):
    _, task, examples = built("moment_detr", clip_length=2.0)
    batch = task.collate(examples[:3])
    seen = batch["clips"] * 2.0
    predicted = {}
    for name, durations in {"whole": seen + 1.0, "twice": seen * 2}.items():
        predicted[name] = task.predict(task.model.eval(), {**batch, "durations": durations}).moments
    assert (predicted["twice"] <= seen[:, None, None]).all()
    expected = predicted["whole"] * (seen / (seen + 1.0))[:, None, None]
    assert (predicted["twice"] - expected).abs().max() <= 2.0  # both in whole clips


def test_saliency_that_is_not_qvhighlights_has_the_usual_figures(built):
    _, task, examples = built("moment_detr")
    items = examples[:4]
    grounded = predict_set(task, items, clips=True)
    usual = set(task.scores(items, grounded))
    for saliency, official in (((0, (4, 4, 4)), True), ((10**6, (4, 4, 4)), False), ((0, (4,)), False)):
        labelled = [replace(item, record=replace(item.record, saliency=(saliency,))) for item in items]
        assert (set(task.scores(labelled, grounded)) > usual) is official


def test_saliency_of_clips_that_are_not_of_two_seconds_is_left_out(built):
    _, task, examples = built("moment_detr")
    items = examples[:4]
    grounded = predict_set(task, items, clips=True)
    for seconds, there, task.clip_length in ((2.0, True, 0.0), (1.0, False, 0.0), (2.5, False, 0.0), (2.0, True, 2.0)):
        lasting = [len(saliency) * seconds for saliency in grounded.saliency]
        timed = [
            replace(item, record=replace(item.record, duration=duration, moments=((0.0, duration),)))
            for item, duration in zip(items, lasting, strict=True)
        ]
        lines = task.prediction_lines("", timed, grounded)
        assert ["pred_saliency_scores" in line for line in lines] == [there] * 4


def test_a_video_that_takes_saliency_and_figures_of_highlights_away_is_named_once(built):
    _, task, examples = built("moment_detr", clip_length=2.0)
    grounded = predict_set(task, examples[:2], clips=True)
    lasting = [2.0 * len(saliency) for saliency in grounded.saliency]
    records = [
        Record(f"q{number}", f"v{number}", "a dog", ((0, 2),), seconds, saliency=((0, (4, 4, 4)),))
        for number, seconds in enumerate((lasting[0], lasting[1] + 6))
    ]
    items = [replace(item, record=record) for item, record in zip(examples[:2], records, strict=True)]
    with pytest.warns(UserWarning) as said:
        assert not any("HL" in score for score in task.scores(items, grounded))
        assert not any("pred_saliency_scores" in line for line in task.prediction_lines("", items, grounded))
    (only,) = said
    assert f"1 of 2 videos, v1 ({len(grounded.saliency[1])} clips, {lasting[1] + 6:g} s) first, " in str(only.message)


@pytest.mark.parametrize(("clip_length", "max_clips"), [(2 * LENGTH, 100), (0.5 * LENGTH, 100), (2 * LENGTH, 12)])
def test_a_clip_length_that_the_features_contradict_is_refused(runs, clip_length, max_clips):
    """Trained on shares of clips * clip length and answered in shares of the duration, every figure would be 0."""
    settings = detr_settings(runs.files, "qd_detr", output="unused", clip_length=clip_length, max_clips=max_clips)
    config = config_from(settings, "test").checked()
    data = BASES["qd_detr"].read(config, {"train": config.annotations_train})
    bank, vocabulary = data.bank("auto", 1.0, QUIET), BASES["qd_detr"].vocabulary(config, data)
    with pytest.raises(DataError, match=rf"contradict --clip-length {clip_length:g}.*--clip-length {LENGTH:g} if all"):
        BASES["qd_detr"].examples(config, data, "train", bank, vocabulary, for_training=True)


def test_queries_about_what_is_cut_off_are_not_learned(runs):
    settings = detr_settings(runs.files, "moment_detr", output="unused", clip_length=LENGTH, max_clips=4)
    config = config_from(settings, "test").checked()
    data = BASES["moment_detr"].read(config, {"train": config.annotations_train})
    bank, vocabulary = data.bank("auto", 1.0, QUIET), BASES["moment_detr"].vocabulary(config, data)
    examples = partial(BASES["moment_detr"].examples, config, data, "train", bank, vocabulary)
    assert len(examples()) == len(data.sets["train"])
    with pytest.warns(UserWarning, match="are about what --max-clips cuts off"):
        assert len(examples(for_training=True)) < len(data.sets["train"])
