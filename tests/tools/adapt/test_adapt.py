"""Adaptation: what is drawn, what learns, what keeps it from forgetting, and what an adapted run is good for."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hero_plugin.integrations import cli
from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.words import Vocabulary
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.support.files import lock_folder
from hero_plugin.integrations.support.process import Interrupted
from hero_plugin.integrations.support.settings import ConfigError
from hero_plugin.integrations.tools.adapt import adapt as adapting
from hero_plugin.integrations.tools.adapt.adapt import Distillation, draw_queries, interpolate, main, mix_rehearsal
from hero_plugin.integrations.tools.adapt.config import AdaptConfig
from hero_plugin.integrations.tools.adapt.report import ScoreMatrix, matrix_markdown
from hero_plugin.integrations.training.bases import BASES, config_from
from hero_plugin.integrations.training.checkpoints import load_checkpoint, save_checkpoint
from hero_plugin.integrations.training.detr import QDDETRTrainConfig
from hero_plugin.integrations.training.engine import Trainer
from hero_plugin.integrations.training.load_run import load_run
from hero_plugin.integrations.training.run_folder import RunFolder, RunFolderError
from hero_plugin.integrations.training.train import main as train
from tests.screen import QUIET
from tests.training.files import detr_settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start(runs, tmp_path_factory) -> RunFolder:
    """HERO-EMB whose test set has words of training alone: those of ``unseen`` are new to it."""
    root = tmp_path_factory.mktemp("start")
    files = runs.files
    settings = files.settings(annotations_test=[f"seen={files.root / 'seen.json'}"], annotations_val=None, dim=16)
    run = train(config_from({**settings, "output": str(root / "run")}, "test"), QUIET)
    return run


def adapt_config(start: RunFolder, runs, output: Path, **changes: object) -> AdaptConfig:
    new = runs.files.root / "unseen.json"
    flags = {"annotations": (f"new={new}",), "shots": 6, "steps": 4, "batch_size": 4, "threads": 1, "device": "cpu"}
    return AdaptConfig(run=start.path, output=output, **{**flags, **changes})


@pytest.fixture(scope="module")
def adapted(start, runs, tmp_path_factory) -> RunFolder:
    return main(adapt_config(start, runs, tmp_path_factory.mktemp("adapted") / "run", lr=1e-2), QUIET)


def model(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.best)["model"]


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_two_adaptations_never_share_a_folder(adapted, start, runs):
    with lock_folder(adapted.path) as ours:
        assert ours
        with pytest.raises(RunFolderError, match="another training is at work in it"):
            main(adapt_config(start, runs, adapted.path, lr=1e-2, resume=True), QUIET)


def test_the_plug_in_alone_learns(start, adapted):
    before, after = model(start), model(adapted)
    shared = [name for name in before if before[name].shape == after[name].shape]
    moved = {name for name in shared if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("hero.") for name in moved)
    grown = set(before) - set(shared)
    assert grown == {"base.embedding_net.word_emb.glove_vec"}
    (name,) = grown
    assert torch.equal(after[name][: len(before[name])], before[name])


def test_before_and_after_are_what_eval_says_of_the_two_runs(start, adapted, runs):
    results = adapted.results()
    assert set(results["best"]) == set(results["before"]) == {"seen", "new"}
    held_out = adapted.path / "queries" / "new-test.json"
    sets = (f"seen={runs.files.root / 'seen.json'}", f"new={held_out}")
    assert evaluate(EvalConfig(run=(start.path,), annotations=sets, device="cpu"), QUIET) == {
        name: pytest.approx(scores) for name, scores in results["before"].items()
    }
    again = evaluate(EvalConfig(run=(adapted.path,), device="cpu"), QUIET)
    assert again == {name: pytest.approx(scores) for name, scores in results["best"].items()}
    table = json.loads((adapted.path / "adaptation.json").read_text())
    change = results["best"]["new"]["mIoU"] - results["before"]["new"]["mIoU"]
    assert table["gain"]["mIoU"] == pytest.approx(change, abs=1e-3)
    assert "| new | new | change | " in (adapted.path / "adaptation.md").read_text()
    assert (adapted.figures / "adaptation.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_drawn_is_written_and_the_rest_is_held_out(adapted, runs):
    queries = adapted.path / "queries"
    drawn, held_out = (read_annotations(queries / f"new-{name}.json") for name in ("train", "test"))
    everything = read_annotations(runs.files.root / "unseen.json")
    assert len(drawn) == 6
    said = lambda records: sorted((record.video_id, record.sentence) for record in records)  # noqa: E731
    assert sorted(said(drawn) + said(held_out)) == said(everything)
    assert adapted.results()["queries"] == {"learned": 6, "seen": 12, "new": len(everything) - 6}


def test_learned_words_count_as_trained(start, adapted):
    before, after = (Vocabulary.from_json(run.vocabulary()) for run in (start, adapted))
    drawn = read_annotations(adapted.path / "queries" / "new-train.json")
    words = {word for record in drawn for word in record.sentence.lower().split() if word in after}
    new = before.unseen(words)
    assert new
    assert after.unseen(words) == []
    assert set(after.adapted) == set(new)
    assert after.unseen([*after.words]) and after.words[: len(before)] == before.words


def test_the_bridge_of_an_adapted_older_run_counts_all_that_it_learned(start, adapted, runs, tmp_path):
    """Such a run kept no counts; those of the few new queries alone would be wrong."""
    expected = Vocabulary.from_json(adapted.vocabulary())
    older = RunFolder(shutil.copytree(start.path, tmp_path / "older"))
    kept = older.vocabulary()
    older.write_json(older.vocabulary_file, {key: kept[key] for key in kept if key not in ("counts", "contexts")})
    run = main(adapt_config(older, runs, tmp_path / "adapted", lr=1e-2), QUIET)
    assert run.vocabulary().keys().isdisjoint({"counts", "contexts"})
    data = BASES["emb"].read(run.settings(), {"unseen": runs.files.root / "unseen.json"})
    known = load_run(run, data, QUIET, bridge=True).task.collate.queries.known
    assert {word: count for word, count in known.counts.items() if count} == expected.counts
    assert known.contexts.to_json() == expected.contexts.to_json()


def test_the_same_seed_gives_the_same_bits_and_another_does_not(start, adapted, runs, tmp_path):
    same = main(adapt_config(start, runs, tmp_path / "same", lr=1e-2), QUIET)
    before, again = model(adapted), model(same)
    assert all(torch.equal(value, before[name]) for name, value in again.items())
    other = model(main(adapt_config(start, runs, tmp_path / "other", lr=1e-2, seed=1), QUIET))
    assert any(not torch.equal(value, before[name]) for name, value in other.items() if "hero" in name)


def test_an_interrupted_adaptation_resumes_to_the_same_bits(start, adapted, runs, tmp_path, monkeypatch):
    config = adapt_config(start, runs, tmp_path / "run", lr=1e-2, checkpoint_steps=1)
    due = Trainer._checkpoint_is_due

    def stop(self):
        if self.progress.step == 2:
            self._leave()
        return due(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_checkpoint_is_due", stop)
        with pytest.raises(Interrupted):
            main(config, QUIET)
    assert not RunFolder(config.output).finished
    with monkeypatch.context() as patch:  # once more, while it scores
        patch.setattr(adapting, "score_sets", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            main(replace(config, resume=True), QUIET)
    assert cli.main(["adapt", "--output", str(config.output), "--resume", "--device", "cpu"]) == 0
    run = RunFolder(config.output)
    straight = model(adapted)
    assert all(torch.equal(value, straight[name]) for name, value in model(run).items())
    assert run.results()["best"] == adapted.results()["best"]


def test_a_resumed_adaptation_keeps_its_settings(start, adapted, runs):
    config = adapt_config(start, runs, adapted.path, lr=1e-2)
    with pytest.raises(RunFolderError, match="holds finished training already"):
        main(config, QUIET)
    with pytest.raises(RunFolderError, match=r"steps"):
        main(replace(config, steps=9, resume=True), QUIET)
    plain = config_from(adapted.config(), "test")
    with pytest.raises(RunFolderError, match="continue it with hero-plugin adapt"):
        RunFolder.create(adapted.path, plain.to_json(), resume=True, overwrite=False)


@pytest.mark.parametrize("which", ["new", "old"])
def test_an_adaptation_is_not_resumed_on_other_queries(start, runs, tmp_path, which):
    """The drawn queries would be others, under the same names."""
    own = RunFolder(shutil.copytree(start.path, tmp_path / "start"))
    files = {"new": tmp_path / "new.json", "old": tmp_path / "old.json"}
    for name, source in (("new", runs.files.root / "unseen.json"), ("old", own.settings().annotations_train)):
        shutil.copy(source, files[name])
    own.write_json(own.config_file, {**own.config(), "annotations_train": str(files["old"])})
    config = adapt_config(own, runs, tmp_path / "run", annotations=(f"new={files['new']}",))
    run = main(config, QUIET)
    drawn = (run.path / "queries" / "new-train.json").read_bytes()
    run.results_file.unlink()  # as if it had been stopped before the end
    before = files[which].read_bytes()
    write_annotations(read_annotations(files[which])[1:], files[which], format="captions")
    with pytest.raises(RunFolderError, match=rf"annotations are not what they were .*{which}\.json"):
        main(replace(config, resume=True), QUIET)
    assert (run.path / "queries" / "new-train.json").read_bytes() == drawn
    older = run.config()  # which kept no checksums of what it drew from
    older["annotations"] = {path: known for path, known in older["annotations"].items() if path != str(files[which])}
    run.write_json(run.config_file, older)
    files[which].write_bytes(before)
    assert main(replace(config, resume=True), QUIET).finished


def test_an_adaptation_without_a_checkpoint_starts_again_on_other_queries(start, runs, tmp_path, monkeypatch):
    """Its scores of the start are about the queries that were held out then."""
    new = Path(shutil.copy(runs.files.root / "unseen.json", tmp_path / "new.json"))
    config = adapt_config(start, runs, tmp_path / "run", annotations=(f"new={new}",))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            main(config, QUIET)
    assert (config.output / "before.json").is_file()
    write_annotations(read_annotations(new)[1:], new, format="captions")
    resumed = main(replace(config, resume=True), QUIET)
    straight = main(replace(config, output=tmp_path / "straight"), QUIET)
    assert resumed.results()["before"] == straight.results()["before"]
    assert resumed.config()["annotations"][str(new)] == straight.config()["annotations"][str(new)]


def test_resuming_where_no_adaptation_is_starts_none(start, adapted, runs, tmp_path, capsys):
    """A mistyped --output with all the flags would be a new adaptation."""
    flags = ["adapt", "--run", str(start.path), "--annotations", f"new={runs.files.root / 'unseen.json'}"]
    mistyped = adapted.path.with_name(f"{adapted.path.name}s")
    assert cli.main([*flags, "--output", str(mistyped), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"--resume: no run in {mistyped}; did you mean {adapted.path}?" in said
    assert cli.main([*flags, "--output", str(tmp_path / "none"), "--resume"]) == 2
    assert "leave --resume out to start one" in capsys.readouterr().err
    assert not mistyped.exists() and not (tmp_path / "none").exists()


def test_an_adaptation_that_cannot_start_deletes_nothing(start, adapted, runs, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(adapted.path, kept)
    config = replace(adapt_config(start, runs, kept), overwrite=True)
    with pytest.raises(ConfigError, match=r"--overwrite would delete .*, which is read"):
        main(replace(config, run=kept), QUIET)
    records = [
        replace(record, video_id=f"nowhere {record.video_id}")
        for record in read_annotations(runs.files.root / "unseen.json")
    ]
    write_annotations(records, tmp_path / "elsewhere.json", format="captions")
    with pytest.raises(DataError, match="nowhere"):
        main(replace(config, annotations=(f"new={tmp_path / 'elsewhere.json'}",)), QUIET)
    assert RunFolder(kept).finished and RunFolder(kept).best.is_file()


def test_several_vocabularies_one_after_the_other_and_once_more(start, runs, tmp_path):
    new = runs.files.root / "unseen.json"
    both, test = (f"a={new}", f"b={new}"), shutil.copy(new, tmp_path / "test.json")
    config = adapt_config(
        start, runs, tmp_path / "run", annotations=both, annotations_test=(f"a={test}",), rehearsal=0.5
    )
    run = main(config, QUIET)
    table = json.loads((run.path / "adaptation.json").read_text())
    assert (table["old"], table["new"], table["after"]) == (["seen"], ["a", "b"], ["start", "a", "b"])
    assert [set(row) for row in table["scores"]] == [{"seen", "a", "b"}] * 3
    first = RunFolder.open(run.path / "1-a")
    assert run.results()["before"] == first.results()["best"] == table["scores"][1]
    rehearsed = sorted(path.name for path in (run.path / "queries").glob("b-rehearsal-*"))
    assert rehearsed == ["b-rehearsal-1.json", "b-rehearsal-2.json"]  # the run's own queries, and those of a
    other = shutil.copy(new, tmp_path / "c.json")  # a's own file would be learned, and measured as old words
    again = main(adapt_config(run, runs, tmp_path / "again", annotations=(f"c={other}",), rehearsal=0.5), QUIET)
    assert set(again.results()["best"]) == {"seen", "a", "b", "c"}
    assert len(list((again.path / "queries").glob("c-rehearsal-*"))) == 3


@pytest.mark.parametrize("base", ["moment_detr", "qd_detr", "tr_detr"])
def test_a_detr_is_adapted(runs, tmp_path, base):
    files = runs.files
    settings = detr_settings(files, base, epochs=1, annotations_test=[f"seen={files.root / 'seen.json'}"])
    start = train(config_from({**settings, "figure_queries": 0, "output": str(tmp_path / "start")}, "test"), QUIET)
    run = main(adapt_config(start, runs, tmp_path / "run", lr=1e-3, rehearsal=0.5), QUIET)
    before, after = model(start), model(run)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("hero.") for name in moved)
    assert run.history()[0]["losses"]["loss_distillation"] >= 0
    vocabulary = Vocabulary.from_json(run.vocabulary())
    assert vocabulary.adapted and set(vocabulary.adapted) <= set(vocabulary.words[vocabulary.trained :])
    assert evaluate(EvalConfig(run=(run.path,), device="cpu"), QUIET).keys() == {"seen", "new"}


def test_drawn_queries_read_their_own_features(tmp_path):
    """Formats without ids count the drawn queries anew, and the files of features are named by the ids before."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "text").mkdir()
    numbers: dict[str, float] = {}

    def write(name: str, videos: int) -> Path:
        entries = {}
        for video in (f"{name}{place}" for place in range(videos)):
            sentences = [f"{video} {what}" for what in ("opens", "closes", "runs")]
            entries[video] = {"duration": 20.0, "timestamps": [[0, 4], [4, 8], [8, 12]], "sentences": sentences}
            np.save(tmp_path / "clips" / f"{video}.npy", np.ones((10, 4), np.float32))
            for place, sentence in enumerate(sentences):
                numbers[sentence] = len(numbers) + 1.0
                vectors = np.full((3, 4), numbers[sentence], np.float32)
                np.savez(tmp_path / "text" / f"qid{video}_{place}.npz", last_hidden_state=vectors)
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
        return tmp_path / f"{name}.json"

    settings = QDDETRTrainConfig(
        annotations_train=write("old", 12),
        annotations_test=(f"old={write('seen', 2)}",),
        query_features=tmp_path / "text",
        features=(tmp_path / "clips",),
        normalize_words=False,
        storage="float32",
    )
    config = AdaptConfig(run=tmp_path, annotations=(f"new={write('new', 6)}",), output=tmp_path / "out", shots=8)
    (stage,) = stages = adapting.plan(replace(config, steps=2, batch_size=8), settings)
    new = {"new": adapting._new_queries(stage, config, settings)}
    drawn = adapting._draw_queries(replace(config, steps=2, batch_size=8), settings, stages, new)
    for path, (records, written) in drawn.items():
        write_annotations(records, path, format=written)
    paths = {"train": stage.train, "rehearsal": stage.rehearsal[0], **dict(stage.settings.test_sets())}
    data = BASES["qd_detr"].read(stage.settings, paths)
    assert [len(records) for records in data.sets.values()] == [8, 16, 6, 10]
    for records in data.sets.values():
        found = data.queries.batch(records)[0][:, 0, 0].tolist()
        assert found == [numbers[record.sentence] for record in records]


def test_interpolation_and_distillation_stay_nearer_to_the_start(start, runs, tmp_path):
    def adapt(name: str, **flags: float) -> RunFolder:
        return main(adapt_config(start, runs, tmp_path / name, lr=1e-2, steps=8, rehearsal=0.0, **flags), QUIET)

    def distance(run: RunFolder) -> float:
        before, after = model(start), model(run)
        return sum((after[key] - before[key]).square().sum() for key in before if key.startswith("hero.")).sqrt().item()

    free, near = adapt("free", distillation=1e-6), adapt("near", distillation=1e3)
    half = adapt("half", distillation=1e-6, interpolation=0.5)
    assert distance(half) == pytest.approx(distance(free) / 2, rel=1e-4)
    divergence = [run.history()[0]["losses"]["loss_distillation"] for run in (near, free)]
    assert 0 < divergence[0] < divergence[1]


def test_distillation_is_zero_at_the_start_and_grows(start, runs):
    settings = config_from(start.config(), "test")
    base = BASES["emb"]
    data = base.read(settings, {"new": runs.files.root / "unseen.json"})
    bank = data.bank("auto", 1.0, QUIET)
    known = Vocabulary.from_json(start.vocabulary())
    task, vocabulary = base.load_task(settings, data, bank, known, model(start), torch.device("cpu"))
    penalty = Distillation(task)
    batch = task.collate(base.examples(settings, data, "new", bank, vocabulary)[:4])
    student = task.model
    student.hero.eval()  # in training mode otherwise: the hook listens to training alone
    student.base.eval()
    student.training = True
    student.hero.cmtr = None

    def value() -> float:
        task.losses(student, batch, 0)
        return penalty(student, batch)

    assert value().item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for parameter in student.hero.parameters():
            parameter.add_(0.2 * torch.ones_like(parameter))
    loss = value()
    assert loss.item() > 1e-4
    loss.backward()
    assert all(parameter.grad is None for parameter in penalty.teacher.parameters())


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5))
def test_a_draw_parts_the_items_and_depends_on_the_seed_alone(size, count, seed):
    items = list(range(size))
    chosen, others = draw_queries(items, count, seed)
    assert sorted(chosen + others) == items
    assert len(chosen) == (min(count, size) or size)
    assert (chosen, others) == draw_queries(items, count, seed)


@given(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=3), st.integers(1, 60), st.floats(0, 0.9))
@example(1, [1, 1, 1], 2, 0.875)  # a step has no room for one of each
@example(1, [1, 1, 1, 1], 16, 0.9)  # equally many of four lists would be all
def test_old_queries_have_their_share_and_every_query_comes_round(new, old, total, share):
    lists = [[f"old {place}"] * size for place, size in enumerate(old)]
    items = mix_rehearsal([f"new {place}" for place in range(new)], lists, total, share, 0)
    assert len(items) == total
    counts = [sum(item == f"new {place}" for item in items) for place in range(new)]
    assert sum(counts) >= 1
    assert max(counts) - min(counts) <= 1
    replayed = {len([item for item in items if item == each[0]]) for each in lists}
    assert len(replayed) <= 1
    assert abs(total - sum(counts) - (total * share if old else 0)) <= len(old)


def test_interpolation_is_between_and_leaves_what_only_one_has():
    before = {"a": torch.zeros(2), "table": torch.zeros(1), "count": torch.tensor(1)}
    after = {"a": torch.ones(2), "table": torch.ones(3), "count": torch.tensor(5)}
    mixed_weights = interpolate(before, after, 0.25)
    assert mixed_weights["a"].tolist() == [0.25, 0.25]
    assert (mixed_weights["table"].tolist(), mixed_weights["count"].item()) == ([1.0, 1.0, 1.0], 5)
    assert interpolate(before, after, 1.0)["a"] is after["a"]


def test_average_and_forgetting_are_those_of_the_literature():
    row = lambda **scores: {name: dict.fromkeys(SCORES, float(value)) for name, value in scores.items()}  # noqa: E731
    matrix = ScoreMatrix(
        ["iid", "ood"],
        ["a", "b"],
        [row(iid=60, ood=40, a=20, b=10), row(iid=50, ood=34, a=36, b=12), row(iid=52, ood=40, a=30, b=40)],
    )
    assert matrix.gain("mIoU") == (10 + 30) / 2
    assert matrix.loss("mIoU") == (8 + 0) / 2
    assert matrix.average("mIoU") == pytest.approx((46 + 30 + 40) / 3)
    assert matrix.forgetting("mIoU") == pytest.approx(((50 - 46) + (36 - 30)) / 2)
    assert "| iid | old | change | -8.00 |" in matrix_markdown(matrix)
    assert "new words +20.00, old words -4.00; average 38.67, forgetting 5.00" in matrix_markdown(matrix)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": None, "annotations": ()}, "--run is missing"),
        ({"shots": -1}, "--shots must be at least 0"),
        ({"rehearsal": 1.0}, "--rehearsal must be a share in"),
        ({"interpolation": 0.0}, "--interpolation must be in"),
        ({"annotations": ("a=x.json", "a=y.json")}, "need different names"),
        ({"annotations": ("train=x.json",)}, "none of them train, val"),
        ({"annotations_test": ("b=x.json",)}, "b is not among --annotations: new"),
        ({"annotations": ("a:b=x.json",)}, "letters, digits"),
        ({"annotations": ("a=nowhere.json",)}, "nowhere.json: no such file"),
    ],
)
def test_wrong_flags_are_told(start, runs, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        replace(adapt_config(start, runs, tmp_path / "run"), **changes).checked()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shots": 99}, r"of 12 queries, --shots 99 leaves none .* --annotations-test new=FILE"),
        ({"shots": 0}, "--shots 0 leaves none"),
        ({"annotations": "seen"}, "a test set named seen already"),
        ({"annotations_old": "learned"}, "which --annotations learns from"),
        ({"annotations_test": "learned"}, "the gain on new words would be measured on new="),
    ],
)
def test_what_cannot_be_adapted_is_told(start, runs, tmp_path, changes, said):
    if changes == {"annotations_test": "learned"}:
        changes = {"annotations_test": (f"new={runs.files.root / 'unseen.json'}",)}
    if changes == {"annotations_old": "learned"}:
        changes = {"annotations_old": (f"old={runs.files.root / 'unseen.json'}",)}
    if "annotations" in changes:
        changes = {"annotations": (f"seen={runs.files.root / 'unseen.json'}",)}
    with pytest.raises(UserError, match=said):
        main(adapt_config(start, runs, tmp_path / "run", **changes), QUIET)
    assert not (tmp_path / "run").exists()


def test_an_adaptation_is_not_resumed_from_another_training(start, runs, tmp_path):
    """Its base is of the one, its words and its scores before would be of the other."""
    own = RunFolder(shutil.copytree(start.path, tmp_path / "start"))
    config = adapt_config(own, runs, tmp_path / "run")
    run = main(config, QUIET)
    run.results_file.unlink()  # as if it had been stopped before the end
    state = load_checkpoint(own.best)
    own.best.unlink()
    save_checkpoint({**state, "epoch": 99}, own.best)
    with pytest.raises(RunFolderError, match=r"weights depend on are not what they were .*start/best\.pt"):
        main(replace(config, resume=True), QUIET)


def test_queries_of_a_format_that_is_read_alone_are_learned_from(start, runs, tmp_path):
    new = tmp_path / "rows.json"
    records = read_annotations(runs.files.root / "unseen.json")
    rows = [[each.video_id, each.duration, [*each.moments[0]], each.sentence] for each in records]
    new.write_text(json.dumps(rows))
    run = main(adapt_config(start, runs, tmp_path / "run", annotations=(f"new={new}",)), QUIET)
    drawn = sorted(path.name for path in (run.path / "queries").glob("new-t*"))
    assert drawn == ["new-test.jsonl", "new-train.jsonl"]
    assert len(read_annotations(run.path / "queries" / "new-train.jsonl")) == 6


def test_without_the_runs_training_queries_nothing_is_rehearsed(start, runs, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(start.path, moved)
    settings = {**json.loads((moved / "config.json").read_text()), "annotations_train": str(tmp_path / "gone.json")}
    (moved / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"gone\.json: .* --rehearsal 0 does without"):
        main(adapt_config(RunFolder(moved), runs, tmp_path / "run"), QUIET)
    config = adapt_config(RunFolder(moved), runs, tmp_path / "other", rehearsal=0.0)
    assert not list((main(config, QUIET).path / "queries").glob("*rehearsal*"))


def test_a_plain_base_has_no_plug_in(runs, tmp_path):
    with pytest.raises(UserError, match="no plug-in to adapt"):
        main(adapt_config(runs.base, runs, tmp_path / "run"), QUIET)
