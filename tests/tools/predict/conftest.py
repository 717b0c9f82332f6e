"""One trained run, and queries about its videos; nobody writes into them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.tools.predict.model import PredictConfig
from hero_plugin.integrations.tools.predict.predict import main
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.train import main as train
from tests.screen import QUIET
from tests.training.files import Files, detr_settings, write_files


@dataclass(frozen=True)
class Trained:
    run: Path
    files: Files
    queries: Path
    """JSON lines: every sentence of both test sets, with its video's length."""

    def predict(self, output: Path, **flags: Any) -> dict[str, Any] | None:
        settings = {"run": self.run, "queries": self.queries, "device": "cpu", "window": 5, "batch_size": 3}
        return main(PredictConfig(output=output, **{**settings, **flags}), QUIET)


@pytest.fixture(scope="package")
def trained(tmp_path_factory) -> Trained:
    root = tmp_path_factory.mktemp("predict")
    files = write_files(root / "data")
    train(config_from(files.settings(output=str(root / "run"), epochs=1), "test"), QUIET)
    rows = []
    for name in ("seen", "unseen"):
        for record in read_annotations(files.root / f"{name}.json"):
            row = {"qid": len(rows), "query": record.sentence, "duration": record.duration, "vid": record.video_id}
            rows.append(row)
    (root / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Trained(root / "run", files, root / "queries.jsonl")


@pytest.fixture(scope="package")
def run_of(trained, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a trained run of a base."""
    made = {"emb": trained.run}

    def of(base: str) -> Path:
        if base not in made:
            made[base] = tmp_path_factory.mktemp(base) / "run"
            small = detr_settings(trained.files, base, output=str(made[base]), epochs=1, annotations_test=[])
            train(config_from(small, "test"), QUIET)
        return made[base]

    return of


@pytest.fixture(scope="package")
def whole(trained, tmp_path_factory) -> bytes:
    """The answers of a run that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "whole.jsonl"
    trained.predict(output)
    return output.read_bytes()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
