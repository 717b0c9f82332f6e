"""The Python on every page, executed as printed."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import nn

from hero_plugin import HeroConfig, adapter, check_adapter, from_pretrained, wrap_model
from tests.benchmarks.start import CONFIGS
from tests.data.samples import CHARADES_CD, DURATIONS, STA, write
from tests.docs.pages import DOCS, python_blocks, run
from tests.resources import shared
from tests.scoring.test_submissions import RECORDS
from tests.tools.vocab.conftest import World, need_packages
from tests.training.files import write_files

TESTED = {
    "start/quickstart.md",
    "guide/check_adapter.md",
    "guide/by_hand.md",  # in test_by_hand.py
    "guide/data.md",
    "guide/distributed.md",
    "guide/evaluate.md",
    "guide/predict.md",
    "guide/loops.md",
    "guide/own_base.md",
    "guide/own_package.md",  # in test_own_package.py
    "guide/plugin_files.md",
    "guide/pretrained_text.md",
    "guide/several_plugins.md",
    "guide/somebodys_repo.md",  # in tools/launch/test_predictors.py
    "guide/submissions.md",
    "guide/timelines.md",
    "guide/train.md",
    "guide/video.md",
    "guide/vocabulary.md",
    "guide/whole_adapters.md",
    "guide/wrap.md",
    "concepts/bases.md",
    "results/adaptation.md",
    "results/charades_cd.md",
    "results/first_epochs.md",
}


def test_no_page_is_forgotten():
    assert {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if python_blocks(path)} == TESTED


def test_readme():
    losses = run("README.md")["losses"]
    assert {"loss_relevance", "loss_consistency"} <= set(losses)
    model = run("README.md")["model"]
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name.startswith("hero."))


def test_a_question_and_an_encoder_of_ones_own(monkeypatch):
    from hero_plugin.integrations.tools.video.grounder import Answer, Moment, VideoGrounder

    class Known(VideoGrounder):
        """What asks is in tests/tools/video."""

        @classmethod
        def from_run(cls, folder):
            assert folder == "runs/hero"
            return cls.__new__(cls)

        def add(self, path):
            assert path == "holiday.mp4"

        def ask_all(self, queries, video=None):
            return [Answer([Moment(0.0, 1.0, 0.5)], np.zeros(3)) for _ in queries]

    monkeypatch.setattr("hero_plugin.integrations.tools.video.grounder.VideoGrounder", Known)
    frames = np.zeros((2, 32, 24, 24, 3), np.uint8)
    found = run("guide/video.md")
    assert found["moments"][0].end == 1.0 and len(found["relevance"]) == 3
    encode = found["encode"]
    assert encode(frames).shape == (2, 256) and encode.frames_per_second * 2 == 32


def test_quick_start(capsys):
    run("start/quickstart.md")
    assert capsys.readouterr().out == "torch.Size([2, 10, 2])\n"


def test_levels_of_a_pretrained_encoder_and_a_bridge_of_tokens():
    found = run("guide/pretrained_text.md")
    assert found["model"].hero.hem is None and found["model"].config.inference == (2,)
    assert found["outputs"]["pred_spans"].shape == (2, 10, 2)
    assert found["words"].shape == (2, 12, 4, 384)


@pytest.mark.slow
def test_wrapping(capsys):
    names = run("guide/wrap.md")
    assert "loss_relevance" in capsys.readouterr().out
    assert names["model"].base is names["base"]


def test_what_a_wrapped_emb_saves_is_the_plugin_alone(tmp_path):
    from hero_plugin import save_plugin

    save_plugin(run("guide/wrap.md")["model"], tmp_path / "plugin.pt")
    weights = torch.load(tmp_path / "plugin.pt", weights_only=True)["hero"]
    assert weights
    assert all(name.startswith("hero.") for name in weights)


@pytest.fixture
def own_base(monkeypatch):
    """What the page's Python defines; its registration is undone afterwards."""
    monkeypatch.setattr(adapter, "_registered", [])
    return run("guide/own_base.md")


def test_two_stage_trains(own_base):
    missing = [name for name, parameter in own_base["model"].named_parameters() if parameter.grad is None]
    assert missing == []
    assert own_base["outputs"]["start"].shape == (2, 64)


def test_the_check_says_what_the_page_says(capsys):
    names = run("guide/check_adapter.md")
    printed, page = capsys.readouterr().out.splitlines(), (DOCS / "guide" / "check_adapter.md").read_text("utf-8")
    failed = [line.partition("failed")[0].strip() for line in printed if "failed" in line]
    assert "words padded right" in failed and "every output has a kind" in failed
    shown = page.partition("these rows failed:\n\n```\n")[2].partition("```")[0]
    assert all(line[48:] in "\n".join(printed) for line in shown.splitlines())
    for finding in names["report"].findings:
        words = finding.check.replace("left", "right").replace(", eval", "").replace("train", "").split()
        assert all(word.strip(",") in page for word in words)


def test_several_plugins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run("guide/several_plugins.md")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("HERO: ") and said[-1] == "['default', 'tacos', 'third'] tacos"
    assert list(names["model"].plugins) == ["default"] and names["model"].config.levels == 4


@pytest.mark.slow
def test_lightning_and_accelerate(tmp_path, monkeypatch):
    for package in ("lightning", "accelerate"):
        pytest.importorskip(package, reason=f"{package} is not installed: the page on its loop is not run")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, on worker processes and the like
        names = run("guide/loops.md")
    start = wrap_model(names["QDDETR"](names["sizes"]), levels=2).state_dict()
    for folder, trained in (("hero-lightning", names["module"].model), ("hero-accelerate", names["model"])):
        loaded = from_pretrained(names["QDDETR"](names["sizes"]), folder).state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in trained.state_dict().items())
    assert not torch.equal(loaded["hero.sgvf.strength"], start["hero.sgvf.strength"])  # which starts at zero


class MyModel(nn.Module):
    """The kind of model that the page's adapter is for."""

    def __init__(self):
        super().__init__()
        self.video_projection, self.query_projection = nn.Linear(20, 16), nn.Linear(30, 16)
        self.score, self.spans = nn.Linear(16, 1), nn.Linear(16, 2)

    def forward(self, video, video_mask, query, query_mask):
        words = self.query_projection(query).mean(1, keepdim=True)
        fused = torch.relu(self.video_projection(video) + words)
        score = self.score(fused).squeeze(-1)
        return {"score": score, "spans": self.spans(fused.mean(1)).sigmoid(), "video_mask": video_mask}


def test_an_adapter_of_ones_own(own_base):
    model = wrap_model(MyModel(), levels=2)
    assert isinstance(model.grounder, own_base["MyModelAdapter"])
    outputs = model(torch.randn(3, 9, 20), torch.ones(3, 9), torch.randn(3, 5, 30), torch.ones(3, 5))
    assert outputs["score"].shape == (3, 9)
    assert set(outputs) == {"score", "spans", "video_mask", "hero"}
    assert ((outputs["spans"] > 0) & (outputs["spans"] < 1)).all()
    inputs = torch.randn(3, 9, 20), torch.ones(3, 9), torch.randn(3, 5, 30), torch.ones(3, 5)
    wrong = {finding.check for finding in check_adapter(model, *inputs).failures}
    assert {"words padded right", "words padded left"} <= wrong  # it averages over all words, and does not say so


@pytest.mark.parametrize("which", ["model", "map_model"])
def test_whole_adapters(which):
    """Everything of HERO learns, and a fresh wrapper answers as its base."""
    names = run("guide/whole_adapters.md")
    model, words, lengths = names[which].eval(), torch.randn(2, 12, 300), torch.tensor([12, 7])
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    real = torch.arange(12) < lengths.unsqueeze(1)
    spans = (torch.randn(2, 64, 1024), torch.ones(2, 64, dtype=torch.bool), words, real)
    given = spans if which == "model" else (torch.randn(2, 64, 500), words, lengths)
    torch.testing.assert_close(model(*given), model.base(*given))


def test_plugin_files(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        names = run("guide/plugin_files.md")
    printed = capsys.readouterr().out
    assert "the base is MomentDETR here, QDDETR in the checkpoint" in printed
    assert "its hidden size is 128 here, 256 in the checkpoint" in printed
    assert names["config"] == HeroConfig()
    assert all(parameter.requires_grad for parameter in names["base"].parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_of_starts_says_of_every_config_what_the_library_says(name):
    page = (DOCS / "concepts" / "hero.md").read_text("utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    said = row.split("|")[6].strip()
    assert said.startswith("yes" if CONFIGS[name].starts_as_base else "no")


def test_bases():
    assert run("concepts/bases.md")["model"].base is not None


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
    assert run("guide/data.md")["store"]["3MSZA"].shape == (4, 6)
    assert json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])["vid"] == "3MSZA"


@pytest.mark.slow
def test_timelines(tmp_path, monkeypatch):
    from hero_plugin.integrations.data.annotations import read_annotations
    from hero_plugin.integrations.data.words import load_word_vectors

    (tmp_path / "action_timelines.json").symlink_to(shared("charades", "action_timelines.json"))
    monkeypatch.chdir(tmp_path)
    records = read_annotations(shared("charades_cd", "charades_train.json"))[:200]
    vectors = load_word_vectors(shared("vectors", "minilm_words_384.npz"))
    names = run("guide/timelines.md", train_records=records, word_vectors=vectors)
    assert names["clips"].shape == (62, 256)


def test_sharding(tmp_path):
    """In one process; tests/core/test_fully_sharded.py has two."""
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not (dist.is_gloo_available() and hasattr(fsdp, "fully_shard")):
        pytest.skip("fully_shard came with torch 2.6")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        names = run("guide/distributed.md")
        fresh = wrap_model(names["build_moment_detr"](names["base"].config)[0])
        fresh.load_state_dict(names["whole"])
        assert all(type(value) is torch.Tensor for value in names["whole"].values())
    finally:
        dist.destroy_process_group()


def test_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write_files(tmp_path).root)
    text = (DOCS / "guide" / "train.md").read_text("utf-8")
    assert 'words=Path("words.npz")))' in text
    from hero_plugin.integrations import train_emb

    small = {"epochs": 1, "dim": 16, "batch_size": 8, "threads": 1, "device": "cpu", "figure_queries": 0}
    usual = train_emb.EmbTrainConfig
    monkeypatch.setattr(train_emb, "EmbTrainConfig", lambda **given: usual(**{**small, **given}))
    run("guide/train.md")
    assert "R1@0.5" in capsys.readouterr().out


def test_evaluation(tmp_path, monkeypatch, capsys):
    files = write_files(tmp_path / "data")
    shutil.copy(files.root / "unseen.json", files.root / "ood.json")
    monkeypatch.chdir(files.root)
    found = run("guide/evaluate.md")
    assert found["difference"].draws.shape == (2000, 4)
    assert found["words"].shape[:2] == found["mask"].shape and found["bridge"].examples(["the wardrobe"], 1) == []
    assert capsys.readouterr().out.split("\n")[1].split()[0] == "0"


def test_answers_in_python(runs, tmp_path, monkeypatch):
    shutil.copytree(runs.hero.path, tmp_path / "runs" / "hero-emb")
    np.save(tmp_path / "kitchen.npy", next(iter(runs.files.data.features.values())))
    monkeypatch.chdir(tmp_path)
    found = run("guide/predict.md")
    assert 0 <= found["start"] < found["end"] <= 31.0 and 0 <= found["curve"].min() <= found["curve"].max() <= 1


def test_submissions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = np.array([[0.0, 8.0]]), np.array([0.9]), np.linspace(0, 1, 30)
    run("guide/submissions.md", records=RECORDS, model=lambda record: found)
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == len(RECORDS)


@pytest.mark.slow
def test_vocabulary(tmp_path, monkeypatch, capsys):
    need_packages()
    world = World.write(tmp_path)
    assert world.build() == 0
    (world / "ov").mkdir()
    shutil.copy(world / "ov.json", world / "ov" / "charades_test_ood.json")
    monkeypatch.chdir(world.folder)
    capsys.readouterr()
    names = run("guide/vocabulary.md")
    assert capsys.readouterr().out == "50.0 {0: 1, 2: 1} crate\n"
    assert names["rewording"].unseen


@pytest.fixture
def beside_shared_data(tmp_path, monkeypatch):
    """A folder from which the annotations are at ../shared/data, as from the repository's."""
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "shared" / "data" / "charades_cd").symlink_to(shared("charades_cd", "charades_train.json").parent)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.usefixtures("beside_shared_data")
def test_adaptation(capsys):
    run("results/adaptation.md")
    assert "train things 787" in capsys.readouterr().out


@pytest.mark.usefixtures("beside_shared_data")
def test_words_that_training_never_saw(capsys):
    run("results/charades_cd.md")
    assert "133 of 3372" in capsys.readouterr().out


def test_the_first_epochs(capsys):
    draws = run("results/first_epochs.md")["draws"]
    assert draws.shape == (200, 4)
    assert [f"{float(each):.2f}" for each in (draws.sum(1).mean(), draws.sum(1).std())] == ["1.00", "0.63"]
