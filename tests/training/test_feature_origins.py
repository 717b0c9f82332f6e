"""A run keeps what made its features, and refuses those of another encoder or rate."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hero_plugin.integrations.data.feature_bank import MANIFEST, make_manifest
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.predict.model import PredictConfig
from hero_plugin.integrations.tools.predict.predict import main as predict
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.load_run import answer
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.train import main as train
from tests.screen import QUIET
from tests.training.files import write_files


def manifest(name="clip", weights="a", rate=0.5, clip_seconds=2.0):
    encoder = {"name": name, "weights": weights, "size": 224, "fit": "crop", "frames_per_second": rate}
    return make_manifest([encoder], clip_seconds=clip_seconds, pooling="mean")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    files = write_files(tmp_path_factory.mktemp("origins"))
    (files.root / "features" / MANIFEST).write_text(json.dumps(manifest()))
    words = make_manifest([{"name": "clip", "weights": "a"}])
    with np.load(files.root / "words.npz") as table:
        np.savez(files.root / "told.npz", **table, manifest=np.array(json.dumps(words)))
    return files


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    words = str(files.root / "told.npz")
    train(config_from(files.settings(output=str(output), words=words, epochs=1), "test"), QUIET)
    return output


def copy_features(files, folder, manifest):
    folder.mkdir()
    for path in (files.root / "features").glob("*.npy"):
        (folder / path.name).hardlink_to(path)
    if manifest is not None:
        (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_a_run_keeps_what_made_its_features(run, files):
    kept = RunFolder.open(run).origins()
    assert kept["features"] == [manifest()] and kept["words"]["encoders"][0]["weights"] == "a"
    assert 8 <= kept["longest_clips"] <= 12


@pytest.mark.parametrize(
    "other, said",
    [
        (manifest(weights="b", name="siglip"), r"siglip \(weights b.*and not clip \(weights a"),
        (manifest(clip_seconds=1.0, rate=1.0), r"a clip every 1 s, and not .*a clip every 2 s"),
        (manifest(rate=2.0), r"2 frames per second.*and not .*0.5 frames per second"),
    ],
)
def test_features_of_another_kind_are_refused(run, files, tmp_path, other, said):
    folder = copy_features(files, tmp_path / "other", other)
    with pytest.raises(UserError, match=said):
        evaluate(EvalConfig(run=(run,), features=(folder,), resamples=0), QUIET)
    with pytest.raises(UserError, match=said):
        answer(run, files.data.sets["seen"], folder, device="cpu")
    with pytest.raises(UserError, match=said):
        predict(
            PredictConfig(run=run, queries=files.root / "seen.json", output=tmp_path / "out", features=(folder,)), QUIET
        )
    assert not (tmp_path / "out").exists()


def test_features_of_the_same_kind_and_unknown_ones_pass(run, files, tmp_path):
    for name, kind in (("same", manifest(name="a/copy")), ("unknown", None)):
        folder = copy_features(files, tmp_path / name, kind)
        assert evaluate(EvalConfig(run=(run,), features=(folder,), resamples=0), QUIET)


def test_another_word_table_is_refused(run, files, tmp_path):
    words = tmp_path / "words.npz"
    other = make_manifest([{"name": "siglip", "weights": "b"}])
    with np.load(files.root / "words.npz") as table:
        np.savez(words, **table, manifest=np.array(json.dumps(other)))
    with pytest.raises(UserError, match=r"siglip .*and not clip"):
        evaluate(EvalConfig(run=(run,), words=words, resamples=0), QUIET)
    assert evaluate(EvalConfig(run=(run,), words=files.root / "words.npz", resamples=0), QUIET)


def test_a_training_does_not_resume_on_other_features(files, tmp_path):
    features = copy_features(files, tmp_path / "features", manifest())
    given = files.settings(output=str(tmp_path / "run"), features=[str(features)], epochs=1)
    train(config_from(given, "test"), QUIET)
    (tmp_path / "run" / "results.json").unlink()
    (features / MANIFEST).write_text(json.dumps(manifest(weights="b")))
    with pytest.raises(UserError, match=r"weights b.*and not clip .weights a"):
        train(config_from({**given, "resume": True}, "test"), QUIET)


def test_rendered_features_that_were_made_anew_are_refused(files, tmp_path):
    folder = copy_features(files, tmp_path / "rendered", {"what": "simulated", "seed": 0, "videos": 5})
    settings = files.settings(output=str(tmp_path / "run"), features=str(folder), epochs=1)
    train(config_from(settings, "test"), QUIET)
    (folder / MANIFEST).write_text(json.dumps({"what": "simulated", "seed": 0, "videos": 9}))  # more videos
    evaluate(EvalConfig(run=(tmp_path / "run",), resamples=0), QUIET)
    (folder / MANIFEST).write_text(json.dumps({"what": "simulated", "seed": 1, "videos": 5}))
    with pytest.raises(UserError, match="was trained on: made anew, by other settings"):
        evaluate(EvalConfig(run=(tmp_path / "run",), resamples=0), QUIET)
    with pytest.raises(UserError, match="cannot resume, as features are not what they were"):
        train(config_from({**settings, "resume": True}, "test"), QUIET)


def test_folders_in_another_order_are_refused(files, tmp_path):
    folders = [str(copy_features(files, tmp_path / name, None)) for name in ("slow", "fast")]
    train(config_from(files.settings(output=str(tmp_path / "run"), features=folders, epochs=1), "test"), QUIET)
    config = EvalConfig(run=(tmp_path / "run",), resamples=0, features=(tmp_path / "fast", tmp_path / "slow"))
    with pytest.raises(UserError, match="was trained on --features in another order: slow fast"):
        evaluate(config, QUIET)


def test_folders_of_other_widths_are_refused_whatever_they_are_called(files, tmp_path):
    folders = []
    for name, part in (("wide", slice(7)), ("narrow", slice(7, None))):
        folders.append(tmp_path / name / "features")
        folders[-1].mkdir(parents=True)
        for path in (files.root / "features").glob("*.npy"):
            np.save(folders[-1] / path.name, np.load(path)[:, part])
    given = files.settings(output=str(tmp_path / "run"), features=[str(each) for each in folders], epochs=1)
    train(config_from(given, "test"), QUIET)
    with pytest.raises(UserError, match=r"trained on --features \[7, 3\] wide, in this order; these are \[3, 7\]"):
        evaluate(EvalConfig(run=(tmp_path / "run",), resamples=0, features=tuple(folders[::-1])), QUIET)
    with pytest.raises(UserError, match="in this order"):
        answer(tmp_path / "run", files.data.sets["seen"], folders[::-1], device="cpu")
    answer(tmp_path / "run", files.data.sets["seen"], files.data.features, device="cpu")  # side by side already


def test_rendered_features_give_way_to_no_extracted_ones(files, tmp_path, monkeypatch):
    rendered = {"what": "simulated", "seed": 0, "sources": {"words": "a.npz"}}
    folder = copy_features(files, tmp_path / "features", rendered)
    given = files.settings(output=str(tmp_path / "run"), features=[str(folder)], epochs=1)
    train(config_from(given, "test"), QUIET)
    (folder / MANIFEST).write_text(json.dumps({**rendered, "sources": {"words": "b.npz"}}))  # the same, renamed
    evaluate(EvalConfig(run=(tmp_path / "run",), resamples=0), QUIET)
    (folder / MANIFEST).write_text(json.dumps(manifest()))
    with pytest.raises(UserError, match="made anew"):
        train(config_from({**given, "resume": True}, "test"), QUIET)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="made anew"):
        evaluate(EvalConfig(run=(tmp_path / "run",), resamples=0, features=(folder.relative_to(tmp_path),)), QUIET)
    (folder / MANIFEST).unlink()  # says nothing
    evaluate(EvalConfig(run=(tmp_path / "run",), resamples=0), QUIET)
