"""The synthetic data as files, as small as a training still means something."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hero_plugin.integrations.data.annotations import write_annotations
from hero_plugin.integrations.data.synthetic import SyntheticConfig, SyntheticData, make_synthetic

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
