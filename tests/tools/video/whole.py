"""From MP4s to moments, with nothing downloaded: ``python -m tests.tools.video.whole --output FOLDER``.

Draws videos of shapes, makes a small CLIP with random weights, extracts features, trains EMB and HERO-EMB on them,
and asks both about the MP4s of the test set: in words of the training, and in words that it never had.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from hero_plugin.integrations.cli import main as command
from hero_plugin.integrations.scoring.metrics import nearest_iou
from hero_plugin.integrations.tools.video.grounder import VideoGrounder
from tests.tools.video.movies import records_of, save_clip, write_world

MODELS = {"EMB": ("emb", ["--base-only"]), "HERO-EMB": ("hero-emb", ["--hero.levels", 2])}


def run(*words: object) -> None:
    """Run a command of ours; it must succeed."""
    print("$ hero-plugin", *words, flush=True)
    if command([str(word) for word in words]):
        raise SystemExit(f"hero-plugin {words[0]} failed")


def make(folder: Path, train: int = 60, test: int = 20) -> dict[str, Path]:
    """Write videos, annotations and encoder; extract all features. Return the annotations by set."""
    files = write_world(folder, {"train": train, "val": 10, "test": test})
    clip = save_clip(folder / "clip")
    run("data", "extract", folder / "videos", "--output", folder / "features", "--encoder", clip)
    queries = ["--queries", *files.values()][:-1]  # unseen has the ids of test
    run(
        "data",
        "extract",
        *queries,
        "--output",
        folder / "text",
        "--encoder",
        clip,
        "--word-table",
        folder / "words.npz",
    )
    return files


def train(folder: Path, files: dict[str, Path], model: str, epochs: int, seed: int) -> Path:
    """Train a model; return the folder of its run."""
    name, flags = MODELS[model]
    data = ["--annotations-train", files["train"], "--annotations-val", files["val"]]
    data += ["--features", folder / "features", "--words", folder / "words.npz"]
    small = ["--dim", 64, "--lr", 1e-3, "--epochs", epochs, "--figure-queries", 0, "--device", "cpu", "--threads", 1]
    run("train", "emb", "--output", folder / name, *data, *small, "--eval-every", epochs, "--seed", seed, *flags)
    return folder / name


def ask(run: Path, folder: Path, annotations: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ask a run about the MP4s of a set: the IoU of each answer, and of each answer with another query's moment."""
    grounder = VideoGrounder.from_run(run, cache=folder / "cache", device="cpu")
    records = records_of(annotations)
    moments = np.zeros((len(records), 2))
    for video in dict.fromkeys(record.video_id for record in records):
        grounder.add(folder / "videos" / f"{video}.mp4")
        mine = [place for place, record in enumerate(records) if record.video_id == video]
        for place, answer in zip(mine, grounder.ask_all([records[place].sentence for place in mine]), strict=True):
            moments[place] = answer.moments[0][:2]
    truths = [record.moments for record in records]
    chance = [nearest_iou(moments, truths[shift:] + truths[:shift]) for shift in range(1, len(truths))]
    return nearest_iou(moments, truths), np.concatenate(chance)


def main(
    folder: Path, *, train_videos: int = 60, test_videos: int = 20, epochs: int = 28, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Run everything; print and return R1@0.5 in percent by model and set."""
    started = time.monotonic()
    files = make(folder, train_videos, test_videos)
    scores: dict[str, dict[str, float]] = {}
    for model in MODELS:
        path = train(folder, files, model, epochs, seed)
        for name in ("test", "unseen"):
            found, chance = ask(path, folder, files[name])
            scores.setdefault(model, {})[name] = 100 * float((found >= 0.5).mean())
            said = 100 * float((chance >= 0.5).mean())
            print(f"{model}, {name}: R1@0.5 {scores[model][name]:.1f}; answers given to other queries: {said:.1f}")
            scores[model][f"{name}, chance"] = said
    first = records_of(files["test"])[0]
    run("ground", folder / "videos" / f"{first.video_id}.mp4", first.sentence, "--run", folder / "hero-emb")
    print(f"annotated: {first.moments}; {time.monotonic() - started:.0f} s in all")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("whole"))
    parser.add_argument("--seed", type=int, default=0, help="of the trainings; the videos stay the same")
    config = parser.parse_args()
    main(config.output, seed=config.seed)
