"""Every repository's real, unmodified scripts through the launcher: with HERO, without, interrupted and resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from zipfile import is_zipfile

import pytest
import torch

from hero_plugin import HeroConfig, config_of
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.checkpoints import load_checkpoint_safely, supported
from tests.tools.launch.layouts import (
    EMB_COMMAND,
    FLASH_VTG_CONFIG,
    checkout,
    detr_command,
    environment,
    files,
    flash_vtg_command,
    launch,
    launch_words,
    lighthouse_command,
)

DETRS = ("moment_detr", "qd_detr", "tr_detr")
HERO = ("--levels", "2", "--num-heads", "4")
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.slow,
    pytest.mark.skipif(not supported(), reason="torch before 2.4 cannot read these checkpoints safely"),
]


def train(repository, *flags, command):
    """A finished training; the repository's own files are what they were."""
    before = files(repository)
    done = launch(repository, *flags, command=command)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    after = files(repository)
    assert {path: after.get(path) for path in before} == before
    return done


def the_only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def meters(log: str, name: str) -> list[float]:
    """A loss as a DETR's log gives it, epoch by epoch."""
    return [float(value) for value in re.findall(rf"\b{name} ([\d.]+)", log)]


def assert_trained(log: str, epochs: int, overall: str = "loss_overall") -> None:
    """HERO's losses are in every epoch's line; relevance and the sum of all fall."""
    losses = {name: meters(log, name) for name in ("loss_relevance", "loss_consistency", overall)}
    assert all(len(values) == epochs and min(values) > 0 for values in losses.values()), losses
    for name in ("loss_relevance", overall):
        assert losses[name][-1] < losses[name][0], losses


@pytest.mark.parametrize("package", DETRS)
def test_detr(package, tmp_path):
    repository = checkout(package, tmp_path)
    done = train(repository, *HERO, command=detr_command(package))
    results = the_only(repository, "results/*")
    log = (results / "train.log.txt").read_text()
    assert_trained(log, epochs=5)
    assert "MR-full-mAP" in done.stderr  # its own evaluation, of its own best checkpoint
    saved = load_checkpoint_safely(results / "model_best.ckpt")
    assert config_of(saved["model"]) == HeroConfig(levels=2, num_heads=4)

    said = next(path for path in results.glob("*_metrics.json") if path.name.split("_")[0] in ("inference", "hl"))
    said.unlink()  # its training ended with an evaluation
    command = [f"{package}/inference.py", "--resume", str(results / "model_best.ckpt"), "--eval_split_name", "val"]
    evaluate(repository, command=[*command, "--eval_path", "tiny/val.jsonl"])
    best = json.loads((results / "best_hl_val_preds_metrics.json").read_text())
    assert json.loads(said.read_text())["brief"] == best["brief"]


def evaluate(repository, *flags, command):
    """An evaluation: nothing is said of HERO, the checkpoint knows."""
    done = launch(repository, *flags, command=command)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "--levels 2" in done.stderr
    return done


@pytest.mark.parametrize("package", DETRS)
def test_detr_without_hero(package, tmp_path):
    repository = checkout(package, tmp_path)
    train(repository, "--without-hero", command=detr_command(package))
    results = the_only(repository, "results/*")
    assert "loss_relevance" not in (results / "train.log.txt").read_text()
    saved = load_checkpoint_safely(results / "model_best.ckpt")
    assert config_of(saved["model"]) is None and not any(name.startswith("base.") for name in saved["model"])


@pytest.mark.parametrize("package", DETRS)
def test_detr_interrupted_and_resumed(package, tmp_path):
    repository = checkout(package, tmp_path)
    words = launch_words(repository, *HERO, command=detr_command(package, "--n_epoch", "100000"))
    kept = tmp_path / "kept.ckpt"
    interrupt(words, lambda: whole(list(repository.glob("results/*/model_latest.ckpt")), kept))
    first = the_only(repository, "results/*")
    epoch = load_checkpoint_safely(kept)["epoch"]
    command = detr_command(package, "--resume", str(kept), "--resume_all", "--n_epoch", str(epoch + 6))
    resumed = train(repository, command=command)
    assert f"Loaded model saved at epoch {epoch}" in resumed.stderr
    (second,) = [folder for folder in repository.glob("results/*") if folder != first]
    assert f"[Epoch] {epoch + 2:03d}" in (second / "train.log.txt").read_text()


def whole(found: list[Path], kept: Path) -> bool:
    """Keep a checkpoint once it is whole: the script writes it anew every epoch, also while Ctrl-C comes."""
    try:
        return bool(load_checkpoint_safely(shutil.copy(found[0], kept)))
    except (IndexError, UserError):
        return False


def interrupt(words, started):
    """Ctrl-C once ``started()`` finds something; the launcher leaves with 130."""
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads fills up
        process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=said)
        try:
            while not started() and process.poll() is None:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=120)
        finally:
            process.kill()
        said.seek(0)
        lines = said.read().splitlines()
    assert process.returncode == 130, lines[-30:]
    assert lines[-1] == "stopped"


def emb_losses(log: str, name: str) -> list[float]:
    """A loss as EMB's log gives it, step by step."""
    return [float(value) for value in re.findall(rf"\b{name} ([\d.]+) \(", log)]


def test_emb(tmp_path):
    repository = checkout("emb", tmp_path)
    train(repository, *HERO, command=[*EMB_COMMAND, "--epochs", "8"])
    session = repository / "sessions/charades/tiny"
    log = (session / "log").read_text()
    relevance = emb_losses(log, "loss_relevance")
    assert len(relevance) == len(emb_losses(log, "loss_consistency")) == len(emb_losses(log, "Loc")) == 48
    assert sum(relevance[-12:]) < sum(relevance[:12])
    best = re.findall(r"Best results yielded.*mIoU: ([\d.]+)", log)[-1]
    saved = load_checkpoint_safely(session / "model_best.pth.tar")
    assert config_of(saved["state_dict"]) == HeroConfig(levels=2, num_heads=4)

    evaluated = evaluate(repository, command=["main.py", "--mode", "test", *EMB_COMMAND[1:]])
    assert re.findall(r"mean IoU\s*:\s*([\d.]+)", evaluated.stdout + evaluated.stderr) == [best]


def test_emb_without_hero(tmp_path):
    repository = checkout("emb", tmp_path)
    train(repository, "--without-hero", command=EMB_COMMAND)
    log = (repository / "sessions/charades/tiny/log").read_text()
    assert "loss_relevance" not in log and "Best results yielded" in log


def test_emb_interrupted_then_evaluated(tmp_path):
    """EMB's code cannot resume a training; what it saved before Ctrl-C evaluates."""
    repository = checkout("emb", tmp_path)
    words = launch_words(repository, *HERO, command=[*EMB_COMMAND, "--epochs", "100000"])
    saved = repository / "sessions/charades/tiny/model_best.pth.tar"
    interrupt(words, lambda: saved.is_file() and is_zipfile(saved))  # whole: EMB's code writes it in place
    evaluate(repository, command=["main.py", "--mode", "test", *EMB_COMMAND[1:]])


def test_flash_vtg(tmp_path):
    repository = checkout("flash_vtg", tmp_path)
    done = train(repository, *HERO, command=flash_vtg_command())
    assert "MR-full-mAP" in done.stderr  # its own evaluation, of its own best checkpoint
    results = the_only(repository, "results/*")
    assert_trained((results / "train.log.txt").read_text(), epochs=5, overall="weighted_loss_overall")
    best = results / "model_best.ckpt"
    assert config_of(load_checkpoint_safely(best)["model"]) == HeroConfig(levels=2, num_heads=4)

    said = results / "hl_val_submission_metrics.json"
    said.unlink()
    options = ["--resume", str(best), "--eval_split_name", "val", "--eval_path", "tiny/val.jsonl"]
    evaluate(repository, command=["FlashVTG/inference.py", FLASH_VTG_CONFIG, *options])
    expected = json.loads((results / "best_hl_val_preds_metrics.json").read_text())
    assert json.loads(said.read_text())["brief"] == expected["brief"]


def test_flash_vtg_without_hero_then_with(tmp_path):
    """Fine-tuning from the plain base's checkpoint; its script goes on where that training was."""
    repository = checkout("flash_vtg", tmp_path)
    train(repository, "--without-hero", command=flash_vtg_command())
    plain = the_only(repository, "results/*")
    assert "loss_relevance" not in (plain / "train.log.txt").read_text()
    saved = load_checkpoint_safely(plain / "model_best.ckpt")
    assert config_of(saved["model"]) is None and not any(name.startswith("base.") for name in saved["model"])

    command = flash_vtg_command("--resume", str(plain / "model_best.ckpt"), "--results_root", "tuned")
    train(repository, *HERO, "--freeze-base", command=command)
    tuned = load_checkpoint_safely(the_only(repository, "tuned/*/model_best.ckpt"))["model"]
    assert all(torch.equal(value, tuned[f"base.{name}"]) for name, value in saved["model"].items())


LIGHTHOUSE = ("moment_detr", "qd_detr", "tr_detr", "eatr", "cg_detr", "uvcom", "taskweave_mr2hd", "taskweave_hd2mr")


@pytest.mark.parametrize("model", LIGHTHOUSE)
def test_lighthouse(model, tmp_path):
    repository = checkout("lighthouse", tmp_path)
    train(repository, *HERO, command=lighthouse_command(model))
    results = the_only(repository, f"results/{model}/qvhighlight/clip_slowfast")
    log = (results / "train.log").read_text()
    assert_trained(log, epochs=5)
    saved = load_checkpoint_safely(results / "best.ckpt")
    assert config_of(saved["model"]) == HeroConfig(levels=2, num_heads=4)

    options = ["--model_path", str(results / "best.ckpt"), "--split", "val"]
    options += ["--eval_path", "data/qvhighlight/highlight_val_release.jsonl"]
    command = ["training/evaluate.py", *lighthouse_command(model)[1:], *options]
    evaluated = evaluate(repository, command=command)
    assert "MR-full-mAP" in evaluated.stderr


def test_lighthouse_without_hero(tmp_path):
    repository = checkout("lighthouse", tmp_path)
    train(repository, "--without-hero", command=lighthouse_command("qd_detr"))
    log = (repository / "results/qd_detr/qvhighlight/clip_slowfast/train.log").read_text()
    assert "loss_relevance" not in log


def test_lighthouse_interrupted_and_fine_tuned(tmp_path):
    """Lighthouse's ``--resume`` starts anew from a checkpoint's weights."""
    repository = checkout("lighthouse", tmp_path, n_epoch=100000)
    best = repository / "results/moment_detr/qvhighlight/clip_slowfast/best.ckpt"
    interrupt(launch_words(repository, *HERO, command=lighthouse_command("moment_detr")), best.is_file)
    config = repository / "configs" / "base.yml"
    config.write_text(config.read_text().replace("100000", "1"))
    resumed = train(repository, command=[*lighthouse_command("moment_detr"), "--resume", str(best)])
    assert "Loaded model checkpoint" in resumed.stderr and "--levels 2" in resumed.stderr


def test_a_hostile_checkpoint_is_refused(tmp_path):
    repository = checkout("moment_detr", tmp_path)
    hostile = repository / "hostile.ckpt"
    torch.save({"model": {}, "opt": Hostile(str(tmp_path / "ran"))}, hostile)
    done = launch(repository, command=detr_command("moment_detr", "--resume", str(hostile)))
    assert done.returncode == 2 and "could run any code" in done.stderr
    assert not (tmp_path / "ran").exists()


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)
