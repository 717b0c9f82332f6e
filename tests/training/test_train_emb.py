"""EMB and HERO-EMB through the whole training: what a run folder holds, and that it is what was asked for."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from hero_plugin import HeroConfig, HeroModel, config_of
from hero_plugin.adapters.emb import EMB, elastic_threshold
from hero_plugin.integrations import cli
from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.features import MemoryFeatures
from hero_plugin.integrations.data.words import Vocabulary, tokenize
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.support.files import lock_folder
from hero_plugin.integrations.support.settings import ConfigError
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.distributed import autocast
from hero_plugin.integrations.training.emb import EmbData, EmbTrainConfig
from hero_plugin.integrations.training.engine import Trainer
from hero_plugin.integrations.training.optim import build_optimizer
from hero_plugin.integrations.training.run_folder import RunFolder, RunFolderError
from hero_plugin.integrations.training.task import VectorCollate
from hero_plugin.integrations.training.train import main, summary
from hero_plugin.integrations.training.vector_base import VectorTask
from tests.screen import QUIET


@pytest.fixture
def built(runs):
    """A function that builds the task of some settings, and its training examples."""
    data = EmbData(runs.files.data.sets, MemoryFeatures(runs.files.data.features), tokenize, runs.files.data.vectors)
    bank = data.bank("auto", 1.0, QUIET)
    vocabulary = Vocabulary.of(data.sentences("train"), data.sentences(), data.vectors, 5.5)

    def build(**changes):
        torch.manual_seed(0)
        config = runs.config(output="unused", **changes)
        task = BASES["emb"].new_task(config, data, bank, vocabulary, torch.device("cpu"))
        return task, BASES["emb"].examples(config, data, "train", bank, vocabulary, for_training=True)

    return build


def test_a_run_folder_holds_everything(runs):
    for run, own in ((runs.base, set()), (runs.hero, {"levels.png"})):
        names = {path.name for path in run.path.iterdir()}
        assert names == {
            "best.pt",
            "config.json",
            "features.json",
            "figures",
            "last.pt",
            "log.jsonl",
            "results.json",
            "tensorboard",
            "vocabulary.json",
        }
        pictures = {path.name for path in run.figures.glob("*.png")}
        assert pictures == {"losses.png", "recall.png"} | own
        assert len(list((run.figures / "queries").glob("*.png"))) == 1
        for path in run.figures.rglob("*.png"):
            assert path.read_bytes().startswith(b"\x89PNG")
        assert len(list(run.events.glob("events.*"))) == 1


def test_the_config_is_complete_and_says_what_it_ran_with(runs):
    config = runs.hero.config()
    assert set(asdict(EmbTrainConfig())) - set(config) == {"output", "config", "resume", "overwrite"}
    assert config["hero"] == json.loads(json.dumps(asdict(HeroConfig())))
    assert set(config["versions"]) == {"hero_plugin", "torch", "numpy", "python"}


def test_the_log_holds_losses_scores_and_level_weights(runs):
    base, hero = runs.base.history(), runs.hero.history()
    emb = {"loss", "loss_location", "loss_highlight", "loss_ranking"}
    assert set(base[0]["losses"]) == emb
    assert set(hero[0]["losses"]) == emb | {"loss_relevance", "loss_consistency"}
    assert base[0]["gauges"] == {}
    for line in hero:
        assert len(line["gauges"]["level_weights"]) == 4
        assert sum(line["gauges"]["level_weights"]) == pytest.approx(1.0)
        assert set(line["metrics"]) == {"val", "seen", "unseen"}
        parts = line["losses"]
        total = parts["loss_location"] + 5.0 * parts["loss_highlight"] + parts["loss_ranking"]
        total += 0.1 * parts["loss_relevance"] + 0.1 * parts["loss_consistency"]
        assert parts["loss"] == pytest.approx(total, rel=1e-5)


def test_the_result_is_the_best_line_of_the_log(runs):
    results, history = runs.hero.results(), runs.hero.history()
    assert results["selected_on"] == "val"
    assert results["best"] == history[results["best_epoch"] - 1]["metrics"]
    assert results["last"] == history[-1]["metrics"]


def test_base_only_is_emb_and_every_ablation_reaches_the_model(built):
    assert isinstance(built(base_only=True)[0].model, EMB)
    model = built(hero={"levels": 2, "sgvf": False, "cmtr": False})[0].model
    assert isinstance(model, HeroModel)
    assert model.config == HeroConfig(levels=2, sgvf=False, cmtr=False)
    assert built(paper=True)[0].model.config == HeroConfig.paper()


def test_the_losses_are_those_of_embs_training_script(built):
    task, examples = built(base_only=True, drop_rate=0.0)
    batch, epoch = task.collate(examples[:5]), 1
    task.epochs = 4
    losses = task.losses(task.model.train(), batch, epoch)
    torch.manual_seed(0)
    model, threshold = task.model, elastic_threshold(epoch, 4)
    h_score, start, end, proposals, p_score, p_mask = model(
        batch["words"], None, batch["video"], batch["video_mask"], batch["word_mask"]
    )
    clips = torch.stack([batch["first"], batch["last"]], -1)
    highlight = model.compute_highlight_loss(
        h_score, None, batch["video_mask"], clips, proposals, p_score, p_mask, threshold=threshold, extend=0.1
    )
    location = model.compute_loss(start, end, batch["first"], batch["last"], proposals, p_score, p_mask, threshold)
    times, spans = [], []
    for row in range(5):  # upstream's batch_index_to_time, one by one
        unit = batch["durations"][row] / batch["clips"][row]
        times.append([batch["first"][row] * unit, (batch["last"][row] + 1) * unit])
        spans.append(
            [[s * unit * m, (e + 1) * unit * m] for (s, e), m in zip(proposals[row], p_mask[row], strict=True)]
        )
    ranking = model.compute_ranking_loss(
        torch.tensor(times), torch.tensor(spans), p_score, p_mask, min_iou=0.3, max_iou=0.7
    )
    torch.testing.assert_close(losses["loss"], location + 5.0 * highlight + ranking)


def test_a_prediction_is_the_bases_clip_range_in_seconds(built):
    task, examples = built(base_only=True)
    batch = task.collate(examples[:6])
    prediction = task.predict(task.model.eval(), batch)
    outputs = task.model(batch["words"], None, batch["video"], batch["video_mask"], batch["word_mask"])
    first, last = task.model.predictor.extract_index(*outputs[1:3])
    for row in range(6):
        unit = batch["durations"][row] / batch["clips"][row]
        torch.testing.assert_close(prediction.moments[row, 0], torch.stack([first[row] * unit, (last[row] + 1) * unit]))
    assert ((prediction.scores > 0) & (prediction.scores <= 1)).all()
    assert not prediction.relevance[batch["video_mask"] == 0].any()


def test_relevance_for_figures_is_heros_own_probability(built):
    task, examples = built()
    batch = task.collate(examples[:4])
    prediction = task.predict(task.model.eval(), batch)
    torch.testing.assert_close(prediction.relevance, task.model.relevance.sigmoid() * batch["video_mask"])


def test_clip_ranges_become_seconds():
    batch = {"durations": torch.tensor([5.0]), "clips": torch.tensor([10])}
    spans = VectorTask.seconds(batch, torch.tensor([[0, 2]]), torch.tensor([[0, 4]]))
    assert spans.tolist() == [[[0.0, 0.5], [1.0, 2.5]]]


@pytest.mark.parametrize("base_only", [True, False])
def test_bf16_gives_finite_losses_and_gradients(built, base_only):
    task, examples = built(base_only=base_only)
    batch = task.collate(examples[:6])
    with autocast("bf16", torch.device("cpu")):
        losses = task.losses(task.model.train(), batch, 0)
    losses["loss"].backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    grads = [p.grad for p in task.model.parameters() if p.requires_grad and p.grad is not None]
    assert grads
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.slow
def test_it_learns_a_handful_of_queries_by_heart(built, tmp_path):
    task, examples = built(base_only=True, drop_rate=0.0)
    run = RunFolder.create(tmp_path / "run", {}, resume=False, overwrite=False)
    task.epochs = 25
    recipe = TrainConfig(epochs=25, batch_size=8, lr=8e-3, eval_every=25, checkpoint_seconds=0)
    trainer = Trainer(task, recipe, examples[:8], run, QUIET)
    trainer.fit({"train": examples[:8]}, select=None)
    assert run.history()[-1]["metrics"]["train"]["mIoU"] > 80


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights(runs, tmp_path):
    again = main(runs.config(output=str(tmp_path / "again"), compare=str(runs.base.path)), QUIET)
    ours, theirs = load_checkpoint(again.last)["model"], load_checkpoint(runs.hero.last)["model"]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_existing_run_is_left_alone(runs):
    before = runs.base.config_file.read_bytes()
    with pytest.raises(RunFolderError, match="--resume to continue it"):
        main(runs.config(output=str(runs.base.path), base_only=True), QUIET)
    with pytest.raises(RunFolderError, match=r"lr: was 0\.0005, now 0\.1"):
        main(runs.config(output=str(runs.base.path), base_only=True, lr=0.1, resume=True), QUIET)
    with pytest.raises(RunFolderError, match=r"settings:\n  hero\.sgvf: was True, now False\n\S"):
        main(
            runs.config(output=str(runs.hero.path), hero={**runs.hero.config()["hero"], "sgvf": False}, resume=True),
            QUIET,
        )
    assert runs.base.config_file.read_bytes() == before


def test_bad_data_is_told_file_by_file_and_leaves_no_checkpoint(runs, tmp_path):
    records = json.loads((runs.files.root / "train.json").read_text())
    video = next(iter(records))
    records["nowhere"] = records[video]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(records))
    config = runs.config(output=str(tmp_path / "run"), annotations_train=str(broken))
    with pytest.raises(DataError, match=r"broken\.json: video nowhere: 2 queries, and no features"):
        main(config, QUIET)
    assert not (tmp_path / "run" / "last.pt").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("broken", ["annotations", "features"])
def test_a_start_that_fails_on_its_data_deletes_nothing(runs, tmp_path, broken):
    kept = tmp_path / "run"
    shutil.copytree(runs.base.path, kept)
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    (tmp_path / "bad").mkdir()
    changes = {"features": [str(tmp_path / "bad")]}
    if broken == "annotations":
        (tmp_path / "bad.json").write_text("{}")
        changes = {"annotations_train": str(tmp_path / "bad.json")}
    else:
        for path in (runs.files.root / "features").iterdir():
            np.save(tmp_path / "bad" / path.name, np.full_like(np.load(path), np.nan))
    with pytest.raises(DataError):
        main(replace(runs.config(output=str(kept), **changes), overwrite=True), QUIET)
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == before


@pytest.mark.parametrize("changes", [{"hero": {"num_heads": 7}}, {"init_base": "narrow"}])
def test_overwrite_keeps_the_run_until_another_can_be_built(runs, tmp_path, changes):
    kept = tmp_path / "run"
    shutil.copytree(runs.base.path, kept)
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    if "init_base" in changes:
        changes = {"init_base": str(runs.base.best), "dim": 24}
    with pytest.raises(UserError, match=r"num_heads|not a checkpoint of this base"):
        main(replace(runs.config(output=str(kept), **changes), overwrite=True), QUIET)
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == before


def test_a_run_without_its_log_has_no_results(runs, tmp_path):
    """Scores of another epoch than the weights' would stand in them."""
    run = RunFolder(shutil.copytree(runs.base.path, tmp_path / "run"))
    seconds = sum(line["seconds"] for line in run.history())
    assert run.results()["seconds"] == pytest.approx(seconds, abs=0.06)
    run.log_file.unlink()
    with pytest.raises(UserError, match=r"log\.jsonl: has no line of the epoch whose weights are the best"):
        summary(run, torch.nn.Linear(1, 1), None)


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
def test_a_run_without_a_checkpoint_gives_way(runs, tmp_path, resume):
    """A start that failed, on sizes that do not go together, is started again with others."""
    config = runs.config(output=str(tmp_path / "run"), hero={"num_heads": 7})
    with pytest.raises(ConfigError, match="num_heads"):
        main(config, QUIET)
    assert (tmp_path / "run" / "config.json").is_file()
    mended = runs.config(output=str(tmp_path / "run"), epochs=1, figure_queries=0)
    assert main(replace(mended, resume=resume), QUIET).finished


def test_nothing_to_resume_is_told_before_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"--resume: no run in .*/typo; leave --resume out to start one\n.*missing"):
        EmbTrainConfig(output=tmp_path / "typo", resume=True).checked()


def test_a_mistyped_run_is_not_resumed_as_a_new_one(runs):
    mistyped = runs.hero.path.with_name("heor")
    with pytest.raises(ConfigError, match=r"--resume: no run in .*heor; did you mean .*/hero\?$"):
        main(runs.config(output=str(mistyped), resume=True), QUIET)
    assert not mistyped.exists()


def test_broken_features_are_told(runs, tmp_path):
    features = tmp_path / "features"
    features.mkdir()
    for path in (runs.files.root / "features").iterdir():
        array = np.load(path)
        if path.stem == "train0003":
            array[1, 2] = np.nan
        np.save(features / path.name, array)
    with pytest.raises(DataError, match="train0003"):
        main(runs.config(output=str(tmp_path / "run"), features=[str(features)]), QUIET)


def test_words_that_the_table_lacks_altogether_are_told(runs, tmp_path):
    np.savez(tmp_path / "other.npz", words=np.array(["bonjour"]), vectors=np.ones((1, 12), np.float32))
    with pytest.raises(UserError, match="no word of the annotations has a vector"):
        main(runs.config(output=str(tmp_path / "run"), words=str(tmp_path / "other.npz")), QUIET)


def test_collate_survives_a_loading_process(runs, built):
    task, examples = built(base_only=True)
    assert isinstance(task.collate, VectorCollate)
    copy = pickle.loads(pickle.dumps(task.collate))
    ours, theirs = task.collate(examples[:3]), copy(examples[:3])
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_two_trainings_do_not_share_a_folder(runs, tmp_path, how):
    pytest.importorskip("fcntl", reason="nothing is locked without fcntl")
    config = replace(runs.config(output=str(tmp_path / "run"), epochs=1), **{how: True})
    run = RunFolder.create(tmp_path / "run", config.to_json(), resume=False, overwrite=False)
    with lock_folder(tmp_path / "run") as alone:
        assert alone
        with pytest.raises(RunFolderError, match="another training is at work in it"):
            main(config, QUIET)
        assert not run.begun
    assert main(config, QUIET).finished


@pytest.mark.parametrize("name", ["train", "val", "reworded"])
def test_a_test_set_takes_no_other_sets_place(runs, tmp_path, name):
    config = runs.config(output=str(tmp_path / "run"), annotations_test=[f"{name}={runs.files.root / 'seen.json'}"])
    with pytest.raises(ConfigError, match="none of them train, val or reworded"):
        main(config, QUIET)


def test_a_val_set_that_nothing_can_be_chosen_by_is_told(runs, tmp_path):
    records = [replace(record, moments=()) for record in read_annotations(runs.files.root / "val.json")]
    write_annotations(records, tmp_path / "val.jsonl", format="qvhighlights")
    config = runs.config(output=str(tmp_path / "run"), annotations_val=str(tmp_path / "val.jsonl"))
    with pytest.raises(UserError, match=r"val\.jsonl: no query has a moment"):
        main(config, QUIET)


@pytest.mark.parametrize("flag", ["init_base", "compare", "annotations_val"])
def test_what_is_read_is_not_deleted_first(runs, tmp_path, flag):
    kept = tmp_path / "run"
    shutil.copytree(runs.base.path, kept)
    shutil.copy(runs.files.root / "val.json", kept)
    paths = {"init_base": kept / "best.pt", "compare": kept, "annotations_val": kept / "val.json"}
    config = runs.config(output=str(kept), **{flag: str(paths[flag])})
    with pytest.raises(ConfigError, match=r"--overwrite would delete .*, which is read: choose another --output"):
        main(replace(config, overwrite=True), QUIET)
    assert (kept / "best.pt").is_file()


def test_only_what_is_learned_has_an_example_for_each_moment(runs):
    config = runs.config(output="unused").checked()
    data = BASES["emb"].read(config, {"train": config.annotations_train})
    first = data.sets["train"][0]
    data.sets["train"] = [replace(first, moments=(first.moments[0], (0.0, first.duration)))]
    bank, vocabulary = data.bank("auto", 1.0, QUIET), BASES["emb"].vocabulary(config, data)
    asked = (config, data, "train", bank, vocabulary)
    assert len(BASES["emb"].examples(*asked)) == 1 and len(BASES["emb"].examples(*asked, for_training=True)) == 2


def test_adamw_decays_weights_alone_in_the_plugin(built):
    task, _ = built()
    optimizer = build_optimizer(task.model, "adamw", 1e-3, 0.01)
    decayed = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
    names = {name for name, parameter in task.model.named_parameters() if id(parameter) in decayed}
    ours = {name for name in names if name.startswith("hero.")}
    assert ours and not any(word in name for name in ours for word in ("norm", "bias", "strength", "mask_token"))


def test_a_run_is_not_resumed_on_other_annotations(runs, tmp_path):
    annotations = tmp_path / "train.json"
    shutil.copy(runs.files.root / "train.json", annotations)
    config = runs.config(output=str(tmp_path / "run"), annotations_train=str(annotations), epochs=1)
    main(config, QUIET)
    assert main(replace(config, resume=True), QUIET).finished
    annotations.write_text(annotations.read_text().replace("person", "somebody"))
    with pytest.raises(RunFolderError, match=r"annotations are not what they were .*: .*train\.json\. Put the earlier"):
        main(replace(config, resume=True), QUIET)


def test_a_run_is_not_resumed_on_another_base(runs, tmp_path):
    base = shutil.copy(runs.base.best, tmp_path / "base.pt")
    config = runs.config(output=str(tmp_path / "run"), init_base=str(base), epochs=1)
    main(config, QUIET)
    assert main(replace(config, resume=True), QUIET).finished
    base.write_bytes(b"other")
    with pytest.raises(RunFolderError, match=f"files that its weights depend on are not .*: {base}. Put"):
        main(replace(config, resume=True), QUIET)


@pytest.mark.parametrize("on_broken, said", [("error", None), ("drop", "left out 1 queries without a moment")])
def test_a_query_without_a_moment_is_not_trained_on(runs, tmp_path, capsys, on_broken, said):
    records = list(runs.files.data.sets["train"])
    records[0] = records[0].replace(moments=())
    write_annotations(records, tmp_path / "train.jsonl", format="qvhighlights")
    config = runs.config(
        output=str(tmp_path / "run"), annotations_train=str(tmp_path / "train.jsonl"), epochs=1, on_broken=on_broken
    )
    if said is None:
        with pytest.raises(DataError, match=r"no moment to train on -> .* --on-broken drop"):
            main(config, QUIET)
        return
    main(config)
    assert said in capsys.readouterr().out
    write_annotations(
        [record.replace(moments=()) for record in records], tmp_path / "train.jsonl", format="qvhighlights"
    )
    with pytest.raises(DataError, match="24 problems:"):
        main(replace(config, overwrite=True), QUIET)


def test_a_word_table_that_lacks_most_words_is_said(runs, tmp_path, capsys):
    with np.load(runs.files.root / "words.npz") as table:
        np.savez(tmp_path / "few.npz", words=table["words"][:2], vectors=table["vectors"][:2])
    main(runs.config(output=str(tmp_path / "run"), words=str(tmp_path / "few.npz"), epochs=1))
    shown = " ".join(capsys.readouterr().out.split())
    assert "words of the training queries have no vector: " in shown and "is this the right word table?" in shown


@pytest.mark.slow
def test_a_level_is_chosen_on_val_and_its_rewordings_and_kept(runs, tmp_path):
    reworded = str(runs.files.root / "unseen.json")
    config = runs.config(output=str(tmp_path / "run"), choose_level=True, annotations_reworded=reworded)
    run = main(config, QUIET)
    levels = run.results()["levels"]
    merits = levels["chosen_by"]
    assert list(merits) == ["0", "1", "2", "3", "0+1+2+3"]
    best = max(merits.values())
    assert merits["+".join(map(str, levels["answering"]))] == best
    assert config_of(torch.load(run.best, weights_only=True)["model"]).inference == tuple(levels["answering"])
    scores = evaluate(EvalConfig(run=(run.path,), device="cpu", resamples=0), QUIET)
    assert scores == {name: pytest.approx(run.results()["best"][name]) for name in ("seen", "unseen")}
    assert "reworded" not in run.results()["last"]


@pytest.mark.parametrize("change", [{"annotations_val": None}, {"base_only": True}, {"hero": {"levels": 1}}])
def test_a_level_cannot_be_chosen_without_levels_or_a_val_set(runs, tmp_path, change):
    with pytest.raises(ConfigError, match="--choose-level needs --annotations-val"):
        main(runs.config(output=str(tmp_path / "run"), choose_level=True, **change), QUIET)
    with pytest.raises(ConfigError, match="--annotations-reworded is for --choose-level"):
        main(runs.config(output=str(tmp_path / "run"), annotations_reworded="val.json"), QUIET)


def test_ctrl_c_says_where_the_training_stopped_and_how_it_goes_on(runs, tmp_path, monkeypatch, capsys):
    due = Trainer._checkpoint_is_due

    def interrupted(self):
        if (self.progress.epoch, self.progress.step) == (1, 1):
            signal.raise_signal(signal.SIGINT)
        return due(self)

    output, settings = tmp_path / "run", runs.files.settings_file("interrupted.json")
    monkeypatch.setattr(Trainer, "_checkpoint_is_due", interrupted)
    assert cli.main(["train", "emb", "--config", str(settings), "--output", str(output)]) == 130
    steps = -(-len(runs.files.data.sets["train"]) // 8)
    again = f"everything is saved. Resume with: hero-plugin train emb --output {output} --resume"
    assert f"stopped in epoch 2 of 2, after step {{}} of {steps}; {again}".format(2) in capsys.readouterr().err
