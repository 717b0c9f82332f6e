"""Files for trainings in tests: the synthetic set, QVHighlights' layout, and checkpoints as published scripts write."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hero_plugin.integrations.data.annotations import write_annotations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.tools.demo import SyntheticConfig, SyntheticData, make_synthetic
from hero_plugin.integrations.training.checkpoints import supported

TINY = SyntheticConfig(
    train_videos=12, test_videos=6, queries=2, clips=(8, 12), events=(2, 2), word_dim=12, video_dim=10
)


@dataclass(frozen=True)
class Files:
    """Where the data set lies, and the settings of a training on it that takes a second an epoch."""

    root: Path
    data: SyntheticData

    def settings(self, **changes: object) -> dict[str, object]:
        return {
            "annotations_train": str(self.root / "train.json"),
            "annotations_val": str(self.root / "val.json"),
            "annotations_test": [f"{name}={self.root / name}.json" for name in ("seen", "unseen")],
            "features": [str(self.root / "features")],
            "words": str(self.root / "words.npz"),
            "epochs": 2,
            "batch_size": 8,
            "dim": 16,
            "threads": 1,
            "device": "cpu",
            "figure_queries": 1,
            **changes,
        }

    def settings_file(self, name: str = "settings.json", **changes: object) -> Path:
        path = self.root / name
        path.write_text(json.dumps(self.settings(**changes)), "utf-8")
        return path


def write_files(root: Path, config: SyntheticConfig = TINY) -> Files:
    data = make_synthetic(config)
    (root / "features").mkdir(parents=True)
    for video, array in data.features.items():
        np.save(root / "features" / f"{video}.npy", array)
    for name, records in data.sets.items():
        write_annotations(records, root / f"{name}.json", format="captions")
    np.savez(root / "words.npz", words=np.array(data.vectors.words), vectors=data.vectors.vectors)
    return Files(root, data)


SMALL = {
    "hidden_dim": 16,
    "nheads": 4,
    "enc_layers": 1,
    "dec_layers": 2,
    "dim_feedforward": 32,
    "num_queries": 6,
    "eval_every": 1,
    "lr": 1e-3,
    "hero": {"levels": 2, "num_heads": 4},
}
"""A DETR that trains in a second."""
OF_EMB = ("dim",)


def detr_settings(files: Files, base: str, **changes: object) -> dict[str, object]:
    """Settings of a tiny training on the synthetic data's files."""
    shared = {name: value for name, value in files.settings().items() if name not in OF_EMB}
    return {**shared, "base": base, **SMALL, **changes}


@dataclass(frozen=True)
class Published:
    """QVHighlights' layout: two folders of video features, one of queries' features, annotations as JSONL."""

    root: Path

    def settings(self, base: str, **changes: object) -> dict[str, object]:
        return {
            "base": base,
            "annotations_train": str(self.root / "train.jsonl"),
            "annotations_val": str(self.root / "val.jsonl"),
            "annotations_test": [f"test={self.root / 'val.jsonl'}"],
            "features": [str(self.root / "slowfast"), str(self.root / "clip")],
            "query_features": str(self.root / "text"),
            "epochs": 2,
            "batch_size": 4,
            "threads": 1,
            "device": "cpu",
            "figure_queries": 0,
            **SMALL,
            **changes,
        }


def write_published(root: Path) -> Published:
    numbers = np.random.default_rng(0)
    for folder in ("slowfast", "clip", "text"):
        (root / folder).mkdir(parents=True)
    for name, count in (("train", 10), ("val", 5)):
        lines = [_line(numbers, root, name, index) for index in range(count)]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Published(root)


def _line(numbers: np.random.Generator, root: Path, name: str, index: int) -> dict[str, object]:
    video, query = f"{name}_{index}", index if name == "train" else 100 + index
    clips = int(numbers.integers(14, 20))
    for folder, width, more in (("slowfast", 6, 1), ("clip", 4, 0)):
        np.savez(root / folder / f"{video}.npz", features=numbers.normal(size=(clips + more, width)).astype("float32"))
    words = numbers.normal(size=(int(numbers.integers(2, 6)), 8)).astype("float32")
    np.savez(root / "text" / f"qid{query}.npz", last_hidden_state=words)
    moments = 7 if index == 0 else int(numbers.integers(1, 3))  # more moments than a step trains on
    scored = [2 * moment for moment in range(moments)]
    return {
        "qid": query,
        "query": f"what happens in video {index}",
        "duration": 2 * clips,
        "vid": video,
        "relevant_windows": [[2 * clip, 2 * clip + 2] for clip in scored],
        "relevant_clip_ids": scored,
        "saliency_scores": numbers.integers(0, 5, size=(moments, 3)).tolist(),
    }


def query(sentence: str) -> Record:
    return Record("q", "v", sentence, ((0.0, 1.0),), 2.0)


def detr_checkpoint(model: nn.Module, opt: Any = None) -> dict[str, Any]:
    """As ``train.py`` of Moment-DETR and its heirs saves it; of lighthouse with its settings in ``opt``.

    Skips the test where torch cannot read it again.
    """
    if not supported():
        pytest.skip("torch before 2.4 cannot read settings safely")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 400)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 3,
        "opt": opt or Namespace(dset_name="hl", hidden_dim=16, device=torch.device("cpu"), v_feat_dirs=["a", "b"]),
    }


def emb_checkpoint(model: nn.Module) -> dict[str, Any]:
    """As EMB's ``main.py`` saves it."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    return {"epoch": 2, "step": 9, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path
