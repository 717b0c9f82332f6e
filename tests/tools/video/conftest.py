"""What the tests of videos share; all of them need PyAV."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hero_plugin.integrations.tools.video.extract import ExtractConfig
from hero_plugin.integrations.tools.video.extract import main as extract
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.train import main as train
from tests.screen import QUIET
from tests.tools.video.movies import Event, save_clip, write_movie, write_world
from tests.training.files import SMALL

EVENTS = [Event("red", "square", 1.0, 6.0), Event("blue", "disc", 8.0, 12.0)]


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    pytest.importorskip("transformers")
    return save_clip(tmp_path_factory.mktemp("encoders") / "clip")


@pytest.fixture(scope="session")
def movie(tmp_path_factory):
    """A file of 15.5 s with B-frames."""
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("movies") / "plain.mp4"
    write_movie(path, EVENTS, 15.5)
    return path


@pytest.fixture(scope="session")
def ffmpeg():
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        pytest.skip("ffmpeg is not installed")

    def run(*words, binary="ffmpeg"):
        loud = ["-v", "error"] + (["-y"] if binary == "ffmpeg" else [])
        return subprocess.run([binary, *loud, *map(str, words)], check=True, capture_output=True).stdout

    return run


@dataclass(frozen=True)
class Asked:
    """A small world, its features, and one run per base on them."""

    root: Path
    files: dict[str, Path]
    runs: dict[str, Path]

    @property
    def plain(self) -> Path:
        """A run of EMB without HERO."""
        return self.root / "plain"

    @property
    def video(self) -> Path:
        return self.root / "videos" / "test000.mp4"


@pytest.fixture(scope="session")
def asked(tmp_path_factory, clip):
    pytest.importorskip("av")
    root = tmp_path_factory.mktemp("asked") / "world"
    files = write_world(root, {"train": 5, "val": 2, "test": 2})
    shared = {"encoder": (str(clip),)}
    extract(ExtractConfig(output=root / "features", videos=(root / "videos",), **shared), QUIET)
    queries = tuple(files[name] for name in ("train", "val", "test"))
    words = root / "words.npz"
    extract(ExtractConfig(output=root / "text", queries=queries, word_table=words, **shared), QUIET)
    extract(ExtractConfig(output=root / "levels", queries=queries, text_layers=(0, 2), **shared), QUIET)
    common = {
        "annotations_train": str(files["train"]),
        "annotations_val": str(files["val"]),
        "features": [str(root / "features")],
        "epochs": 1,
        "batch_size": 8,
        "threads": 1,
        "device": "cpu",
        "figure_queries": 0,
        "hero": {"levels": 2, "num_heads": 4},
    }
    runs = {name: root / name for name in ("emb", "moment_detr", "qd_detr")}
    given = {
        "emb": {"words": str(words), "dim": 16},
        "moment_detr": {"query_features": str(root / "text"), "base": "moment_detr", **SMALL, "clip_length": 0.0},
        "qd_detr": {"query_features": str(root / "levels"), "base": "qd_detr", **SMALL, "clip_length": 0.0},
    }
    given["qd_detr"]["hero"] = {"levels": 2, "levels_from": "input"}
    for name, run in runs.items():
        train(config_from({**common, **given[name], "output": str(run)}, "test"), QUIET)
    train(
        config_from({**common, **given["emb"], "hero": {}, "base_only": True, "output": str(root / "plain")}, "test"),
        QUIET,
    )
    return Asked(root, files, runs)
