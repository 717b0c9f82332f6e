"""The Python on every other page, executed as printed."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.data.samples import CHARADES_CD, DURATIONS, STA, write
from tests.docs import test_repository_pages
from tests.resources import REPOSITORY, shared
from tests.training.dataset import write_files
from tests.training.test_submissions import RECORDS

TESTED_ELSEWHERE = {
    "adapters.md",
    "checkpoints.md",
    "vocabulary.md",
    *(path.name for path in test_repository_pages.PAGES.iterdir()),
}


def run(page: str, **names: object) -> dict[str, object]:
    """What the page's blocks define, in one namespace."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / page).read_text("utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert blocks
    return names


def test_no_page_is_forgotten():
    with_code = {path.name for path in (REPOSITORY / "docs").rglob("*.md") if "```python" in path.read_text("utf-8")}
    tested = {name.removeprefix("test_") + ".md" for name in globals() if name.startswith("test_")}
    assert with_code <= tested | TESTED_ELSEWHERE


def test_adaptation(tmp_path, monkeypatch, capsys):
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "shared" / "data" / "charades_cd").symlink_to(shared("charades_cd", "charades_train.json").parent)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run("adaptation.md")
    assert "train things 787" in capsys.readouterr().out


def test_detr():
    assert run("detr.md")["model"].base is not None


def test_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = np.array([[0.0, 8.0]]), np.array([0.9]), np.linspace(0, 1, 30)
    run("evaluation.md", records=RECORDS, model=lambda record: found)
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == len(RECORDS)


def test_drift(capsys):
    assert run("drift.md")["difference"].draws.shape == (2000, 4)
    assert capsys.readouterr().out.split()[0] == "0"


def test_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write_files(tmp_path).root)
    text = (REPOSITORY / "docs" / "training.md").read_text("utf-8")
    assert 'words=Path("words.npz")))' in text
    from hero_plugin.integrations import train_emb

    small = {"epochs": 1, "dim": 16, "batch_size": 8, "threads": 1, "device": "cpu", "figure_queries": 0}
    usual = train_emb.EmbTrainConfig
    monkeypatch.setattr(train_emb, "EmbTrainConfig", lambda **given: usual(**{**small, **given}))
    run("training.md")
    assert "R1@0.5" in capsys.readouterr().out


def test_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "charades_train.json", CHARADES_CD)
    write(tmp_path, "charades_sta_train.txt", STA)
    timelines = {video: {"duration": duration, "actions": []} for video, duration in DURATIONS.items()}
    write(tmp_path, "action_timelines.json", timelines)
    clips = np.ones((4, 3), np.float32)
    for folder in ("features/i3d", "slowfast", "clip"):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "3MSZA.npy", clips)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file["3MSZA"] = clips
    assert run("data.md")["store"]["3MSZA"].shape == (4, 6)
    assert json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])["vid"] == "3MSZA"


def test_timelines(tmp_path, monkeypatch):
    from hero_plugin.integrations.annotations import read_annotations
    from hero_plugin.integrations.words import load_word_vectors

    (tmp_path / "action_timelines.json").symlink_to(shared("charades", "action_timelines.json"))
    monkeypatch.chdir(tmp_path)
    records = read_annotations(shared("charades_cd", "charades_train.json"))[:200]
    vectors = load_word_vectors(shared("vectors", "minilm_words_384.npz"))
    assert run("timelines.md", train_records=records, word_vectors=vectors)["clips"].shape == (62, 256)


def test_results(tmp_path, monkeypatch, capsys):
    shared("charades_cd", "charades_train.json")
    monkeypatch.chdir(REPOSITORY)
    run("results.md")
    assert "133 of 3372" in capsys.readouterr().out
