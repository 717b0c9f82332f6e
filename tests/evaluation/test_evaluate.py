"""Scoring a finished run: the scores of its training, words it never saw, and what it writes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hero_plugin import Bridge
from hero_plugin.adapters.emb.model import FIRST_WORD, UNK
from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.evaluation import evaluate as evaluating
from hero_plugin.integrations.evaluation.evaluate import EvalConfig, main
from hero_plugin.integrations.scoring.metrics import grounding_scores, nearest_iou, temporal_iou
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.training.bases import BASES, config_from
from hero_plugin.integrations.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from hero_plugin.integrations.training.emb import EmbTrainConfig
from hero_plugin.integrations.training.load_run import answer, load_run
from hero_plugin.integrations.training.queries import NEAREST
from hero_plugin.integrations.training.run_folder import RunFolder, RunFolderError
from hero_plugin.integrations.training.task import Grounded, Task
from hero_plugin.integrations.training.train import main as train
from tests.screen import QUIET
from tests.training.files import detr_settings


def evaluate(run: RunFolder, **flags: object) -> dict[str, dict[str, float]]:
    return main(EvalConfig(run=(run.path,), device="cpu", **flags), QUIET)


@pytest.mark.parametrize("kind", ["base", "hero"])
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_scores_are_those_of_the_training(runs, kind, checkpoint):
    run = getattr(runs, kind)
    scores = evaluate(run, checkpoint=checkpoint)
    expected = {name: value for name, value in run.results()[checkpoint].items() if name != "val"}
    assert scores == {name: pytest.approx(values) for name, values in expected.items()}


def test_a_run_is_scored_on_as_many_threads_as_it_had(runs, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert runs.hero.config()["threads"] == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    evaluate(runs.hero, resamples=0)
    evaluate(runs.hero, resamples=0, threads=2)
    assert asked == [1, 2]


def test_predictions_and_scores_are_written_and_agree(runs, tmp_path):
    path = runs.files.root / "seen.json"
    scores = evaluate(
        runs.hero, annotations=(f"mine={path}",), json=tmp_path / "scores.json", predictions=tmp_path / "moments.jsonl"
    )
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["scores"] == scores
    lines = [json.loads(line) for line in (tmp_path / "moments.jsonl").read_text().splitlines()]
    records = read_annotations(path)
    assert [line["query_id"] for line in lines] == [record.query_id for record in records]
    truth = np.array([record.moments[0] for record in records])
    again = grounding_scores(np.array([line["moment"] for line in lines]), truth)
    assert again == pytest.approx(scores["mine"], abs=0.01)


@pytest.fixture
def new_words(runs, tmp_path):
    """Test queries with a word that no file of the run has, and a table that has a vector for it."""
    records = [
        record.replace(sentence=re.sub(r"\b(the|a)\b", "ye", record.sentence))
        for record in read_annotations(runs.files.root / "seen.json")
    ]
    write_annotations(records, tmp_path / "new.json", format="captions")
    table = runs.files.data.vectors
    vector = table.get("the")
    words, vectors = [*table.words, "ye"], np.vstack([table.vectors, vector])
    np.savez(tmp_path / "words.npz", words=np.array(words), vectors=vectors)
    return tmp_path


def test_a_word_outside_the_vocabulary_gets_its_vector(runs, new_words):
    data_flags = {"annotations": (str(new_words / "new.json"),), "words": new_words / "words.npz"}
    loaded = _load(runs.hero, new_words / "new.json", new_words / "words.npz")
    assert loaded.vocabulary.words[-1] == "ye"
    table = loaded.task.model.state_dict()["base.embedding_net.word_emb.glove_vec"]
    torch.testing.assert_close(table[-1], table[loaded.vocabulary.words.index("the")])
    (items,) = loaded.sets.values()
    ids = loaded.task.collate(items)["words"]
    assert len(loaded.vocabulary) - 1 + FIRST_WORD in ids
    assert UNK not in ids
    assert evaluate(runs.hero, **data_flags)["new"]


def test_overlaps_of_written_moments_are_those_of_the_model():
    item = SimpleNamespace(record=Record("1", "v", "a", ((0.0, 20.0009),), 30.0))
    found = Grounded(np.array([[[0.0, 10.00045]]]), np.array([[1.0]]), [np.ones(3)])
    (line,) = Task.prediction_lines(None, "test", [item], found)
    assert nearest_iou([line["moment"]], [item.record.moments]) == [0.5]  # of milliseconds less, and no hit


def test_a_word_that_the_table_lacks_is_the_learned_unknown(runs, new_words):
    loaded = _load(runs.hero, new_words / "new.json", runs.files.root / "words.npz")
    (items,) = loaded.sets.values()
    assert UNK in loaded.task.collate(items)["words"]


def test_the_bridge_reads_an_unseen_word_by_its_trained_neighbours(runs, new_words):
    words = (new_words / "new.json", new_words / "words.npz")
    plain, bridged = _load(runs.hero, *words), _load(runs.hero, *words, bridge=True)
    for name, tensor in plain.task.model.state_dict().items():
        assert torch.equal(tensor, bridged.task.model.state_dict()[name]), name
    table = plain.task.model.base.embedding_net.word_emb
    items = plain.sets["new"]
    ids, read = (each.task.collate(items)["words"] for each in (plain, bridged))
    before = table.eval()(ids)
    trained = torch.from_numpy(plain.vocabulary.is_trained(plain.vocabulary.words))
    new = torch.isin(ids, torch.arange(len(trained))[~trained] + FIRST_WORD)
    assert new.any()
    torch.testing.assert_close(read[~new], before[~new], rtol=0, atol=0)
    counts = torch.tensor(plain.vocabulary.counts_of(plain.vocabulary.words))
    expected = bridged.task.collate.queries
    bridge = Bridge(table.glove_vec.data[trained], counts[trained], nearest=NEAREST)
    for row, place in new.nonzero().tolist():
        said = expected.queries.tokenize(items[row].record.sentence)
        more = plain.vocabulary.contexts.expected(said, place, plain.vocabulary.counts)
        had = [word for word, is_trained in zip(plain.vocabulary.words, trained, strict=True) if is_trained]
        mixed = bridge(before[row, place], torch.tensor([more.get(word, 0.0) for word in had]))
        torch.testing.assert_close(read[row, place], mixed)
        assert not torch.allclose(read[row, place], before[row, place])


def test_the_bridge_counts_the_words_of_a_run_of_an_earlier_version(runs, new_words, tmp_path):
    older = RunFolder(shutil.copytree(runs.hero.path, tmp_path / "older"))
    vocabulary = older.vocabulary()
    counts, contexts = vocabulary.pop("counts"), vocabulary.pop("contexts")
    older.write_json(older.vocabulary_file, vocabulary)
    words = (new_words / "new.json", new_words / "words.npz")
    now, then = (_load(run, *words, bridge=True) for run in (runs.hero, older))
    again = then.task.collate.queries.known
    assert again.counts == counts and json.loads(json.dumps(again.contexts.to_json())) == contexts
    assert torch.equal(*(each.task.collate(each.sets["new"])["words"] for each in (now, then)))
    older.write_json(older.path / "config.json", {**older.config(), "annotations_train": str(tmp_path / "gone.json")})
    with pytest.raises(UserError, match=r"older: --bridge counts the words of an older run's .* no annotation file"):
        _load(older, *words, bridge=True)


def test_levels_that_answer_are_chosen_by_a_flag_and_said(runs, tmp_path):
    loaded = _load(runs.hero, runs.files.root / "seen.json", runs.files.root / "words.npz", levels=(1,))
    assert loaded.task.model.config.inference == (1,)
    by_level = [evaluate(runs.hero, levels=(level,)) for level in range(4)]
    assert any(scores != by_level[0] for scores in by_level[1:])  # trained for a moment, some agree
    assert evaluate(runs.hero, levels=(1,), bridge=True, json=tmp_path / "scores.json", table=(tmp_path / "table.md",))
    written = json.loads((tmp_path / "scores.json").read_text())
    assert (written["levels"], written["bridge"]) == ([1], True)
    assert "HERO-EMB (level 1, bridge)" in (tmp_path / "table.md").read_text()
    with pytest.raises(UserError, match=r"--levels: the levels that answer .* are of 0 to 3"):
        evaluate(runs.hero, levels=(4,))
    with pytest.raises(UserError, match="this is a run of the plain base"):
        evaluate(runs.base, levels=(0,))


def _load(run: RunFolder, annotations: Path, words: Path, **flags: object):
    settings = replace(run.settings(), words=words)
    data = BASES["emb"].read(settings, {"new": annotations})
    return load_run(run, data, QUIET, **flags)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(RunFolderError, match="not the folder of a run"):
        main(EvalConfig(run=(tmp_path,)), QUIET)


def test_an_unknown_checkpoint_is_said(runs):
    with pytest.raises(UserError, match="best or last, got 'final'"):
        evaluate(runs.base, checkpoint="final")


def test_a_run_that_never_trained_is_said(runs, tmp_path):
    settings = runs.config(output=str(tmp_path / "run"))
    run = RunFolder.create(tmp_path / "run", settings.to_json(), resume=False, overwrite=False)
    run.write_json(run.vocabulary_file, runs.base.vocabulary())
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        evaluate(run)


def test_features_of_another_width_are_said(runs, tmp_path):
    for path in (runs.files.root / "features").iterdir():
        np.save(tmp_path / path.name, np.zeros((5, 3), np.float32))
    with pytest.raises(UserError, match="trained on features of width 10, these have 3"):
        evaluate(runs.base, features=(tmp_path,))


def test_vectors_of_another_width_are_said(runs, new_words):
    np.savez(new_words / "narrow.npz", words=np.array(["ye", "the"]), vectors=np.ones((2, 5), np.float32))
    with pytest.raises(UserError, match="have 12 numbers, this word table 5"):
        evaluate(runs.base, annotations=(str(new_words / "new.json"),), words=new_words / "narrow.npz")


def test_a_run_without_test_sets_needs_annotations(runs, tmp_path):
    run = RunFolder.create(tmp_path / "run", EmbTrainConfig().to_json(), resume=False, overwrite=False)
    with pytest.raises(UserError, match="name some with --annotations"):
        evaluate(run)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"annotations": ("a/test.json", "b/test.json")}, "sets need different names, got test, test"),
        ({"annotations": ("a=a.json", "a=b.json")}, "sets need different names, got a, a"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
    ],
)
def test_flags_that_cannot_be_are_reported(runs, flags, said):
    with pytest.raises(UserError, match=said):
        evaluate(runs.base, **flags)


@pytest.mark.parametrize("flag", ["json", "predictions", "figures"])
def test_where_it_cannot_write_is_reported_before_it_scores(runs, tmp_path, flag, monkeypatch):
    monkeypatch.setattr(evaluating, "evaluate_run", lambda *given: pytest.fail("it scored first"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"--{flag} .*: is a (folder; name a file|file; name a folder)"):
        evaluate(runs.base, **{flag: tmp_path / "file" if flag == "figures" else tmp_path})


def test_a_set_without_annotations_has_no_scores_and_its_json_is_json(runs, tmp_path):
    records = [replace(record, moments=()) for record in read_annotations(runs.files.root / "seen.json")]
    write_annotations(records, tmp_path / "asked.jsonl", format="qvhighlights")
    evaluate(runs.base, annotations=(f"asked={tmp_path / 'asked.jsonl'}",), json=tmp_path / "scores.json")

    def refused(constant: str) -> None:
        raise AssertionError(constant)

    written = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refused)
    assert set(written["scores"]["asked"].values()) == {None}


def test_the_level_that_a_checkpoint_says_answers(runs, tmp_path):
    run = RunFolder(shutil.copytree(runs.hero.path, tmp_path / "run"))
    loaded = _load(run, runs.files.root / "seen.json", runs.files.root / "words.npz")
    weights = loaded.task.model.keep_level(2).state_dict()
    save_checkpoint({**load_checkpoint(run.best), "model": weights}, run.best)
    again = _load(run, runs.files.root / "seen.json", runs.files.root / "words.npz")
    assert again.task.model.config.inference == (2,)


def run_and_table(base, runs, folder):
    """A run of the base, and the words and vectors of its table."""
    run = runs.hero
    if base != "emb":
        run = train(config_from(detr_settings(runs.files, base, output=str(folder / "run"), epochs=1), "test"), QUIET)
    with np.load(runs.files.root / "words.npz") as table:
        return run, table["words"], table["vectors"]


@pytest.mark.parametrize("base", ["emb", "qd_detr"])
def test_another_word_table_is_refused_and_a_copy_in_half_precision_is_not(runs, tmp_path, base):
    run, words, vectors = run_and_table(base, runs, tmp_path)
    np.savez(tmp_path / "half.npz", words=words, vectors=vectors.astype(np.float16))
    np.savez(tmp_path / "other.npz", words=words, vectors=np.roll(vectors, 1, axis=0))
    assert evaluate(run, words=tmp_path / "half.npz", resamples=0).keys() == {"seen", "unseen"}
    with pytest.raises(UserError, match=r"its vector of '.*' is another than the run's: .* give --words that table"):
        evaluate(run, words=tmp_path / "other.npz", resamples=0)


@pytest.mark.parametrize("base", ["emb", "qd_detr"])
def test_a_word_table_is_known_again_by_words_that_the_queries_lack(runs, tmp_path, base):
    run, words, vectors = run_and_table(base, runs, tmp_path)
    new = np.array([*words, "wardrobe"]), np.vstack([vectors, vectors[:1] + 1])
    record = read_annotations(runs.files.root / "seen.json")[0].replace(sentence="wardrobe")
    for name, rows, shift in (("whole", slice(None), 0), ("other", slice(None), 1), ("lacking", slice(-1, None), 0)):
        np.savez(tmp_path / f"{name}.npz", words=new[0][rows], vectors=np.roll(new[1], shift, axis=0)[rows])
    write_annotations([record], tmp_path / "new.json", format="captions")
    asked = {"annotations": (f"new={tmp_path / 'new.json'}",), "resamples": 0}
    assert evaluate(run, words=tmp_path / "whole.npz", **asked).keys() == {"new"}
    with pytest.raises(UserError, match=r"other\.npz: its vector of '.*' is another than the run's"):
        evaluate(run, words=tmp_path / "other.npz", **asked)
    with pytest.raises(UserError, match=r"lacking\.npz: has none of the words that the run was trained with, such as"):
        evaluate(run, words=tmp_path / "lacking.npz", **asked)


@pytest.mark.parametrize("base", ["emb", "qd_detr"])
def test_python_gets_the_answers_of_a_run(runs, tmp_path, base):
    run = runs.base
    if base != "emb":
        changes = {"output": str(tmp_path / "run"), "epochs": 1, "normalize_features": True}
        run = train(config_from(detr_settings(runs.files, base, **changes), "test"), QUIET)
    records = read_annotations(runs.files.root / "unseen.json")
    found = answer(run.path, records, runs.files.data.features, device="cpu", bridge=True)
    again = answer(str(run.path), records, runs.files.root / "features", device="cpu", bridge=True)
    np.testing.assert_array_equal(found.moments, again.moments)
    ious = [
        max(temporal_iou(moment, each) for each in record.moments)
        for record, moment in zip(records, found.moments[:, 0], strict=True)
    ]
    expected = evaluate(run, bridge=True, resamples=0)["unseen"]
    assert 100 * np.mean(ious) == pytest.approx(expected["mIoU"], abs=1e-3)
    assert [len(curve) for curve in found.relevance] == [len(runs.files.data.features[r.video_id]) for r in records]
    with pytest.raises(DataError, match=r"records: .*no features"):
        answer(run.path, [records[0].replace(video_id="elsewhere")], runs.files.data.features, device="cpu")


def test_a_way_to_answer_is_compared_with_the_usual_one(runs, tmp_path, capsys):
    flags = {"levels": (1,), "resamples": 200}
    main(EvalConfig(run=(runs.hero.path,), device="cpu", compare=True, json=tmp_path / "both.json", **flags))
    shown = capsys.readouterr().out
    assert "HERO-EMB (level 1) minus HERO-EMB" in " ".join(shown.split())
    both = json.loads((tmp_path / "both.json").read_text())["runs"]
    assert [each["levels"] for each in both] == [None, [1]]
    for each, alone in zip(both, ({}, {"levels": (1,)}), strict=True):
        assert each["scores"] == evaluate(runs.hero, resamples=0, **alone)
    with pytest.raises(UserError, match="--compare compares with --bridge or --levels: give one of them"):
        evaluate(runs.hero, compare=True)


def test_a_set_called_train_is_scored_as_any_other(runs, tmp_path):
    """Its queries without a moment are answered, and do not count: nothing is trained on."""
    records = read_annotations(runs.files.root / "seen.json")
    bare = [replace(record, moments=()) if place % 2 else record for place, record in enumerate(records)]
    write_annotations(bare, tmp_path / "some.jsonl", format="qvhighlights")
    scores, lines = {}, {}
    for name in ("train", "other"):
        path = tmp_path / f"{name}.jsonl"
        scores[name] = evaluate(
            runs.hero, annotations=(f"{name}={tmp_path / 'some.jsonl'}",), resamples=0, predictions=path
        )[name]
        lines[name] = len(path.read_text().splitlines())
    assert scores["train"] == scores["other"] and lines == dict.fromkeys(lines, len(records))
