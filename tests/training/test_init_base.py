"""``--init-base`` and ``--freeze-base``: a training starts from a trained base, which learns on or stays as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hero_plugin.adapters.emb import EMB, EMBConfig
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import ConfigError
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.checkpoints import load_checkpoint, start_from
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.train import main
from tests.core import detr
from tests.screen import QUIET
from tests.training.files import detr_checkpoint, detr_settings, emb_checkpoint, saved

pytestmark = pytest.mark.slow


class Heard(Screen):
    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def frozen(runs, tmp_path_factory):
    output = tmp_path_factory.mktemp("frozen") / "run"
    screen = Heard()
    config = runs.config(output=str(output), init_base=str(runs.base.best), freeze_base=True)
    return main(config, screen), screen.lines


def test_a_frozen_base_is_the_trained_one_to_the_bit(frozen, runs):
    run, said = frozen
    base, hero = load_checkpoint(runs.base.best)["model"], load_checkpoint(run.last)
    assert all(torch.equal(hero["model"][f"base.{name}"], value) for name, value in base.items())
    assert any(value.any() for name, value in hero["model"].items() if name.endswith("sgvf.strength"))
    learned = sum(value.numel() for name, value in hero["model"].items() if name.startswith("hero."))
    assert run.results()["parameters"] == learned
    assert len(hero["optimizer"]["param_groups"][0]["params"]) == sum(
        name.startswith("hero.") for name in hero["model"]
    )
    assert any("starts from the base in" in line and "the plain base" in line for line in said)
    assert any("base frozen" in line for line in said)


def test_such_a_run_evaluates_and_resumes(frozen, runs):
    run, _ = frozen
    scores = evaluate(EvalConfig(run=(run.path,)), QUIET)
    assert scores["seen"] == pytest.approx(run.results()["best"]["seen"])
    again = replace(config_from(run.config(), "test"), output=run.path, resume=True)
    before = load_checkpoint(run.last)["model"]
    main(again, QUIET)
    after = load_checkpoint(run.last)["model"]
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_the_first_scores_are_the_bases(runs, tmp_path):
    config = runs.config(output=str(tmp_path / "run"), init_base=str(runs.base.best), epochs=1, lr=1e-12)
    run = main(config, QUIET)
    base = evaluate(EvalConfig(run=(runs.base.path,)), QUIET)
    assert run.results()["last"]["seen"] == pytest.approx(base["seen"], abs=1e-3)


@pytest.mark.parametrize("val", [True, False])
def test_no_epochs_make_a_run_of_a_checkpoint_as_it_is(runs, tmp_path, val):
    given = {} if val else {"annotations_val": None}
    config = runs.config(output=str(tmp_path / "run"), init_base=str(runs.base.best), epochs=0, base_only=True, **given)
    run = main(config, QUIET)
    theirs, ours = (load_checkpoint(path)["model"] for path in (runs.base.best, run.best))
    assert all(torch.equal(theirs[name], value) for name, value in ours.items() if name not in KEPT)
    scores = run.results()["best"]["seen"]
    assert scores == pytest.approx(evaluate(EvalConfig(run=(runs.base.path,)), QUIET)["seen"])
    assert evaluate(EvalConfig(run=(run.path,), bridge=True), QUIET)["seen"] == pytest.approx(scores, abs=5)
    main(replace(config, resume=True), QUIET)
    assert [line["epoch"] for line in run.history()] == [0] and run.results()["best"]["seen"] == scores


def emb(words=9, **changes):
    sizes = {"word_dim": 12, "video_feature_dim": 10, "dim": 16, "num_heads": 2, "max_pos_len": 32, **changes}
    return EMB(EMBConfig(**sizes), torch.randn(words, sizes["word_dim"]))


KEPT = ("embedding_net.word_emb.glove_vec", "embedding_net.char_emb.char_emb.weight")


def test_the_data_keep_their_vocabulary(tmp_path):
    trained, model = emb(words=20, char_size=30), emb()
    own = {name: value.clone() for name, value in model.state_dict().items() if name in KEPT}
    start_from(model, saved(emb_checkpoint(trained), tmp_path / "model_best.pth.tar"), KEPT)
    there = trained.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if name in own else there[name]), name


def test_an_authors_checkpoint_is_a_start_for_a_wrapped_model(tmp_path):
    from hero_plugin import HeroConfig, wrap_model

    trained = detr.qd_detr()
    path = saved(detr_checkpoint(trained), tmp_path / "model_best.ckpt")
    model = wrap_model(detr.qd_detr())
    assert "note" not in start_from(model, path)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in model.base.state_dict().items())
    assert "note: the predictions do not start as that base's: " in start_from(
        wrap_model(detr.qd_detr(), config=HeroConfig.paper()), path
    )
    whole = saved(detr_checkpoint(wrap_model(trained)), tmp_path / "wrapped.ckpt")
    start_from(detr.qd_detr(), whole)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: emb(dim=32), r"is \(16,.*\) here, \(32,.*\) in the checkpoint"),
        (lambda: emb(video_feature_dim=7), r"video_affine.linear.conv1d.weight is \(16, 10, 1\) here, \(16, 7, 1\)"),
        (detr.moment_detr, "the base is EMB here, MomentDETR in the checkpoint"),
    ],
)
def test_another_base_is_no_start(other, said, tmp_path):
    path = saved({"model": other().state_dict()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=said) as error:
        start_from(emb(), path, KEPT)
    assert "--init-base" in str(error.value) and "another checkpoint" in str(error.value)


def test_other_inputs_than_the_bases_are_told(runs, tmp_path):
    screen = Heard()
    given = {"init_base": str(runs.base.best), "epochs": 1, "figure_queries": 0}
    main(runs.config(output=str(tmp_path / "alike"), **given), screen)
    assert not any("other inputs" in line for line in screen.lines)
    main(runs.config(output=str(tmp_path / "run"), tokenizer="treebank", word_norm=2.0, **given), screen)
    [said] = [line for line in screen.lines if "other inputs" in line]
    assert "given other inputs than there: --tokenizer treebank, there words, --word-norm 2.0, there 5.5" in said


def test_a_plugin_alone_is_no_start(tmp_path):
    from hero_plugin import save_plugin, wrap_model

    save_plugin(wrap_model(emb()), tmp_path / "plugin.pt")
    with pytest.raises(UserError, match="without the weights of a base"):
        start_from(emb(), tmp_path / "plugin.pt", KEPT)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"freeze_base": True}, "--freeze-base needs --init-base"),
        ({"epochs": 0}, "--epochs 0 takes the weights of --init-base as they are, which is not given"),
        ({"freeze_base": True, "base_only": True}, "--freeze-base leaves nothing to train without HERO"),
        ({"init_base": "absent.pt"}, r"absent\.pt: no such file"),
    ],
)
def test_impossible_flags(changes, said, runs, tmp_path):
    with pytest.raises(ConfigError, match=said):
        runs.config(output=str(tmp_path), **changes).checked()


def test_runs_from_before_these_flags_resume():
    assert TrainConfig.earlier["freeze_base"] is False and TrainConfig.earlier["init_base"] is None


def test_a_detr_starts_from_a_run_of_its_own(runs, tmp_path):
    settings = {**detr_settings(runs.files, "moment_detr"), "epochs": 1}
    base = main(config_from({**settings, "output": str(tmp_path / "base"), "base_only": True}, "test"), QUIET)
    started = {**settings, "output": str(tmp_path / "hero"), "init_base": str(base.best), "freeze_base": True}
    run = main(config_from(started, "test"), QUIET)
    before, after = load_checkpoint(base.best)["model"], load_checkpoint(run.last)["model"]
    assert all(torch.equal(after[f"base.{name}"], value) for name, value in before.items())


@pytest.mark.parametrize("base", ["emb", "qd_detr"])
def test_another_word_table_is_no_start_and_does_not_resume(base, runs, tmp_path):
    with np.load(runs.files.root / "words.npz") as table:
        words, vectors = table["words"], table["vectors"]
    path = tmp_path / "words.npz"
    np.savez(path, words=words, vectors=vectors.astype(np.float16))
    settings = runs.files.settings() if base == "emb" else detr_settings(runs.files, base)
    settings = {**settings, "words": str(path), "epochs": 1, "figure_queries": 0}
    plain = config_from({**settings, "output": str(tmp_path / "base"), "base_only": True}, "test")
    run = main(plain, QUIET)
    np.savez(path, words=words, vectors=vectors)
    started = config_from({**settings, "output": str(tmp_path / "hero"), "init_base": str(run.best)}, "test")
    main(started, QUIET)
    main(replace(plain, resume=True), QUIET)
    np.savez(path, words=words, vectors=np.roll(vectors, 1, axis=0))
    said = "its vector of '.*' is another than the run's: .* give --words that table"
    with pytest.raises(UserError, match=rf"--init-base .*best\.pt: .*{said}"):
        main(replace(started, overwrite=True), QUIET)
    with pytest.raises(UserError, match=said):
        main(replace(plain, resume=True), QUIET)
