"""Copies of the upstream clones with a few tiny feature files in the layout that each expects."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.resources import REPOSITORY, upstream

DEVICE = "0" if torch.cuda.is_available() else "-1"
"""As the DETRs' scripts number it: where there is a GPU, ``.cuda()`` in their models leaves no other choice."""

CLONES = {
    "emb": "EMB",
    "moment_detr": "moment_detr",
    "qd_detr": "QD-DETR",
    "tr_detr": "TR-DETR",
    "flash_vtg": "FlashVTG",
    "lighthouse": "lighthouse",
}
DETR_NEEDS = ("sklearn", "pandas", "tabulate", "tqdm", "tensorboard", "scipy")
NEEDS = {
    "emb": ("nltk", "tqdm", "matplotlib"),
    "flash_vtg": (*DETR_NEEDS, "nncore"),
    "lighthouse": ("sklearn", "pandas", "tabulate", "tqdm", "easydict", "yaml", "scipy"),
}
WORDS = ["a", "person", "holds", "opens", "closes", "the", "box", "door", "window", "book", "slowly", "and", "smiles"]
HIDDEN = "256"
"""QD-DETR, TR-DETR and their copies work with no other."""
LEFT_OUT = (".git", "data", "results", "checkpoint", "features", "images", "run_on_video", "*.pyc", "__pycache__")


def checkout(name: str, folder: Path, n_epoch: int = 5) -> Path:
    """The clone's code, copied, and the files that it reads; Lighthouse's configuration has the number of epochs.

    Skips the test where the clone, or a package that its code needs, is not there.
    """
    clone = upstream(CLONES[name])
    lacking = [module for module in NEEDS.get(name, DETR_NEEDS) if importlib.util.find_spec(module) is None]
    if lacking:
        pytest.skip(f"{CLONES[name]}'s code needs {', '.join(lacking)}, not installed")
    repository = Path(shutil.copytree(clone, folder / CLONES[name], ignore=shutil.ignore_patterns(*LEFT_OUT)))
    if name == "emb":
        emb_files(repository)
    elif name == "lighthouse":
        lighthouse_files(repository, n_epoch)
    else:
        published_files(repository / "tiny")
    if name == "flash_vtg":
        (repository / "data").mkdir()
        shutil.copy(clone / FLASH_VTG_CONFIG, repository / FLASH_VTG_CONFIG)
    return repository


def launch(repository: Path, *flags: str, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """``hero-plugin launch`` as a user types it, from another folder than the repository's."""
    return subprocess.run(
        launch_words(repository, *flags, command=command),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment(),
        check=False,
        **options,  # type: ignore[call-overload]
    )


def launch_words(repository: Path, *flags: str, command: list[str]) -> list[str]:
    start = [sys.executable, "-m", "hero_plugin.integrations.cli", "launch", "--repo", str(repository)]
    return [*start, *flags, "--", *command]


def environment() -> dict[str, str]:
    """One thread; and threads in the place of the eight processes that the official evaluation starts, seven times."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent / "startup"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": path}


def files(repository: Path) -> dict[str, bytes]:
    """Every file of a repository, by path."""
    found = (path for path in repository.rglob("*") if path.is_file())
    return {str(path.relative_to(repository)): path.read_bytes() for path in found}


def emb_files(repository: Path) -> None:
    """Charades-STA's text, video features and a GloVe file, where EMB looks for them."""
    numbers = np.random.default_rng(0)
    annotations, features = repository / "data/dataset/charades", repository / "data/features/charades/new"
    annotations.mkdir(parents=True)
    features.mkdir(parents=True)
    videos = {f"V{index:03d}": int(numbers.integers(12, 24)) for index in range(14)}
    for video, clips in videos.items():
        np.save(features / f"{video}.npy", numbers.normal(size=(clips, 1024)).astype("float32"))
    (features / "feature_shapes.json").write_text(json.dumps(videos))
    (annotations / "charades.json").write_text(json.dumps({video: {"duration": 30.0} for video in videos}))
    for split, count in (("train", 22), ("test", 6)):
        lines = []
        for index in range(count):
            start, length = float(numbers.uniform(0, 15)), float(numbers.uniform(4, 12))
            sentence = " ".join(numbers.choice(WORDS, size=int(numbers.integers(4, 8))))
            video = list(videos)[index % len(videos)]
            lines.append(f"{video} {start:.1f} {start + length:.1f}##{sentence}.\n")
        (annotations / f"charades_sta_{split}.txt").write_text("".join(lines))
    glove = (f"{word} {' '.join(f'{x:.3f}' for x in numbers.normal(size=300))}\n" for word in [*WORDS, "."])
    (repository / "data/features/glove.840B.300d.txt").write_text("".join(glove))


EMB_COMMAND = ["main.py", "--task", "charades", "--seed", "1", "--dim", "16", "--num_heads", "4", "--batch_size", "4"]
EMB_COMMAND += ["--max_pos_len", "16", "--epochs", "3", "--deploy", "--model_name", "tiny", "--init_lr", "0.003"]


def published_files(folder: Path) -> None:
    """QVHighlights' published layout: two folders of video features, one of queries', annotations as JSONL."""
    numbers = np.random.default_rng(0)
    for part in ("slowfast", "clip", "text"):
        (folder / part).mkdir(parents=True)
    for split, first, count in (("train", 0, 12), ("val", 100, 6)):
        lines = [published_line(numbers, folder, first + index) for index in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))


def published_line(numbers: np.random.Generator, folder: Path, index: int) -> dict[str, object]:
    """A query, and its features. Its moment is short, middle or long in turn: the official script needs all three."""
    video, clips = f"video_{index}", 75  # as in QVHighlights: some of Lighthouse's models take no other length
    start, end = ((70, 78), (60, 90), (6, 146))[index % 3]
    for part, width in (("slowfast", 6), ("clip", 4)):
        features = numbers.normal(size=(clips, width)).astype("float32")
        features[start // 2 : end // 2, 0] += 4.0  # what there is to learn
        np.savez(folder / part / f"{video}.npz", features=features)
    words = numbers.normal(size=(int(numbers.integers(3, 7)), 8)).astype("float32")
    np.savez(folder / "text" / f"qid{index}.npz", last_hidden_state=words)
    relevant = list(range(start // 2, end // 2))
    return {
        "qid": index,
        "query": f"what happens in video {index}",
        "duration": 2 * clips,
        "vid": video,
        "relevant_windows": [[start, end]],
        "relevant_clip_ids": relevant,
        "saliency_scores": numbers.integers(1, 5, size=(len(relevant), 3)).tolist(),
    }


def detr_command(package: str, *more: str) -> list[str]:
    """A tiny training by the repository's own script."""
    words = [f"{package}/train.py", "--dset_name", "hl", "--ctx_mode", "video_tef", "--exp_id", "tiny"]
    words += ["--train_path", "tiny/train.jsonl", "--eval_path", "tiny/val.jsonl", "--eval_split_name", "val"]
    words += ["--v_feat_dirs", "tiny/slowfast", "tiny/clip", "--v_feat_dim", "10", "--t_feat_dir", "tiny/text"]
    words += ["--t_feat_dim", "8", "--bsz", "4", "--results_root", "results", "--device", DEVICE, "--num_workers", "0"]
    words += ["--hidden_dim", HIDDEN, "--nheads", "4", "--dim_feedforward", "32", "--n_epoch", "5", "--lr", "0.0005"]
    return [*words, *more]


FLASH_VTG_CONFIG = "data/MR.py"


def flash_vtg_command(*more: str) -> list[str]:
    """A tiny training by FlashVTG's own script, which evaluates one query at a time."""
    script, *words = detr_command("FlashVTG")
    words += ["--eval_bsz", "1", "--eval_epoch", "5", "--use_neg", "--num_dummies", "3", "--num_conv_layers", "1"]
    words += ["--enc_layers", "1", "--t2v_layers", "1", "--dummy_layers", "1"]
    return [script, FLASH_VTG_CONFIG, *words, *more]


def lighthouse_files(repository: Path, n_epoch: int) -> None:
    """Features where Lighthouse looks for them, and its own configuration files turned down to a tiny training."""
    tiny = repository / "features" / "qvhighlight"
    published_files(tiny)
    (tiny / "text").rename(tiny / "clip_text")
    data = repository / "data" / "qvhighlight"
    data.mkdir(parents=True)
    (tiny / "train.jsonl").rename(data / "highlight_train_release.jsonl")
    (tiny / "val.jsonl").rename(data / "highlight_val_release.jsonl")
    sizes = {"hidden_dim": int(HIDDEN), "nheads": 4, "dim_feedforward": 32, "bsz": 4, "lr": 0.0005}
    epochs = {"num_workers": 0, "n_epoch": n_epoch, "eval_epoch_interval": min(n_epoch, 5)}
    changes = {"base": {**sizes, **epochs}, "feature/clip_slowfast": {"v_feat_dim": 12, "t_feat_dim": 8}}
    for name, values in changes.items():
        path = repository / "configs" / f"{name}.yml"
        kept = [line for line in path.read_text().splitlines() if line.partition(":")[0] not in values]
        path.write_text("\n".join([*kept, *(f"{key}: {value}" for key, value in values.items())]) + "\n")


def lighthouse_command(model: str) -> list[str]:
    return ["training/train.py", "--model", model, "--dataset", "qvhighlight", "--feature", "clip_slowfast"]
