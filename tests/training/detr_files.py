"""Data for the DETRs: the synthetic set with word vectors, and QVHighlights' layout with scores and many moments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hero_plugin.integrations.data.records import Record
from tests.training.dataset import Files

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
