"""Training on several processes is training on one: gradients, scores, checkpoints, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hero_plugin.integrations.cli import main as command
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.process import Rank
from hero_plugin.integrations.training.batching import predict_set
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.distributed import ALONE, choose_device, joined
from hero_plugin.integrations.training.run_folder import RunFolder
from tests.training.files import write_files
from tests.training.processes import (
    COUNT,
    CPU,
    EXACT,
    SIZES,
    TOY,
    cases,
    every_gradient,
    everything,
    free_port,
    interrupted,
    largest_difference,
    of_losses,
    of_parameters,
    one_fails,
    seeded_toy,
    start,
)
from tests.training.toy import fit, items, trainer

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.skipif(
        not dist.is_available() or not dist.is_gloo_available() or os.name != "posix", reason="torch has no gloo here"
    ),
]


@dataclass(frozen=True)
class Two:
    """What two processes have left in ``folder``; the gradients of one, and those of each of the two."""

    folder: Path
    alone: dict[str, Any]
    shares: list[dict[str, Any]]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Two:
    folder = tmp_path_factory.mktemp("two")
    chosen = cases(folder)
    interrupted(folder / "one-two", 6, 0.0, ALONE)
    running = start(everything, folder, chosen, free_port())
    alone = every_gradient(chosen, folder, ALONE)
    while not running.join():
        pass
    return Two(folder, alone, [torch.load(folder / f"gradients{rank}.pt", weights_only=True) for rank in range(2)])


def test_the_gradient_is_that_of_the_whole_batch(two):
    for name in EXACT:
        for place, size in enumerate(SIZES):
            whole = two.alone[name][place]
            assert max(float(each.abs().max()) for each in of_parameters(whole).values()) > 0.01
            for share in two.shares:
                assert largest_difference(whole, share[name][place]) < 1e-6, (name, size)


def test_padding_leaves_embs_losses_alone(two):
    for place in range(len(SIZES)):
        for share in two.shares:
            ours, theirs = share["HERO-EMB, padded"][place], two.alone["HERO-EMB, padded"][place]
            assert largest_difference(of_losses(ours), of_losses(theirs)) < 1e-6


def test_only_the_loss_of_negatives_differs_where_levels_meet(two):
    for share in two.shares:
        ours, theirs = (of_losses(each["HERO-QD-DETR"][0]) for each in (share, two.alone))
        apart = {name for name in ours if (ours[name] - theirs[name]).abs().max() > 1e-6}
        assert apart <= {"loss", "loss_saliency"}


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / f"{name}.pt")["model"]


def log(folder: Path) -> list[dict[str, Any]]:
    lines = RunFolder.open(folder).history()
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_that_was_stopped_anywhere_ends_as_one_that_was_not(two):
    whole = weights(two.folder / "whole")
    for at in (0, 3, 7):
        stopped = two.folder / f"stopped{at}"
        assert largest_difference(whole, weights(stopped)) == 0
        assert log(stopped) == log(two.folder / "whole")
    assert len(log(two.folder / "whole")) == TOY.epochs


def test_the_number_of_processes_may_change_and_changes_nothing_but_rounding(two, tmp_path):
    fit(trainer(tmp_path / "one", TOY, count=COUNT, dropout=0.0))
    fit(trainer(two.folder / "two-one", TOY, count=COUNT, dropout=0.0, resume=True))
    for name in ("two", "two-one", "one-two"):
        for kind in ("last", "best"):
            assert largest_difference(weights(tmp_path / "one", kind), weights(two.folder / name, kind)) < 1e-6
        for ours, theirs in zip(log(two.folder / name), log(tmp_path / "one"), strict=True):
            assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-6)
            assert np.allclose(ours["curve"], theirs["curve"], atol=1e-6)
            assert (ours["lr"], ours["step"], ours["best_epoch"]) == (
                theirs["lr"],
                theirs["step"],
                theirs["best_epoch"],
            )
            for dataset, scores in theirs["metrics"].items():
                assert ours["metrics"][dataset] == pytest.approx(scores, abs=1e-4)


def test_evaluation_counts_every_query_once_and_predicts_the_same_bits(two):
    said = predict_set(seeded_toy(), items(11), 2, clips=True)
    for index in range(2):
        moments, scores, *relevance = torch.load(two.folder / f"grounded{index}.pt", weights_only=False)
        assert np.array_equal(moments, said.moments)
        assert np.array_equal(scores, said.scores)
        assert len(relevance) == 11
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(relevance, said.relevance, strict=True))


def test_a_process_that_does_not_answer_is_noticed(two):
    assert "did not answer for 0.0333 minutes" in (two.folder / "hangs0.txt").read_text("utf-8")


def test_when_one_process_fails_the_others_say_so_and_stop(tmp_path):
    running = start(one_fails, tmp_path)
    for process in running.processes:
        process.join(60)
    told_peer, failed = (process.exitcode for process in running.processes)
    assert told_peer == 2
    assert failed not in (0, None)
    told = (tmp_path / "0.txt").read_text("utf-8")
    assert "another process of this training has ended, or did not answer" in told


def torchrun(module: str, *flags: object, **options: Any) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--standalone", "-m", f"hero_plugin.integrations.{module}", *map(str, flags)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_torchrun_stops_in_order_and_one_process_goes_on(tmp_path, capsys):
    settings = write_files(tmp_path / "data").settings_file(epochs=40, checkpoint_steps=1)
    output = tmp_path / "run"
    process = torchrun("train_emb", "--config", settings, "--output", output)
    deadline = time.monotonic() + 120
    while not (output / "last.pt").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert err.count("; everything is saved. Resume with, under torchrun or not: hero-plugin train emb") == 1, err
    assert out.count("2 processes share the 8 queries of each step") == 1, out
    done = load_checkpoint(output / "last.pt")["progress"]
    assert not any(name.startswith("module") for name in weights(output))
    epochs = done["epoch"] + 1
    assert not (output / "results.json").exists()
    # The rest by one process would take long, and is tested above: the same run as it is, for one more epoch.
    config = (output / "config.json").read_text("utf-8")
    (output / "config.json").write_text(re.sub(r'"epochs": 40', f'"epochs": {epochs}', config), "utf-8")
    assert command(["train", "emb", "--output", str(output), "--resume"]) == 0
    assert [line["epoch"] for line in RunFolder.open(output).history()] == list(range(1, epochs + 1))


def test_a_mistake_in_the_flags_is_told_once():
    _, err = torchrun("cli", "train", "emb", "--lr", "0").communicate(timeout=120)
    assert err.count("--lr must be positive") == 1, err


def test_other_commands_refuse_to_run_twice(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("eval", "sweep", "adapt", "demo"):
        assert command([name]) == 2
        assert "start it without torchrun" in capsys.readouterr().err


def test_processes_that_cannot_meet_are_told_so(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"cannot meet .* start them with torchrun"), joined(Rank(1, 2, 1), CPU):
        pass


def test_each_process_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="give torchrun --nproc-per-node 2"):
        choose_device("auto", Rank(2, 3, 2))
    with pytest.raises(UserError, match="give --device cuda"):
        choose_device("cuda:0", Rank(1, 2, 1))
    opened = []
    monkeypatch.setattr(torch, "empty", lambda size, device: opened.append(device))
    assert choose_device("auto", Rank(2, 3, 2), shared=True) == torch.device("cuda:0")
    assert choose_device("cuda:1", Rank(2, 3, 2), shared=True) == torch.device("cuda:1")
    assert len(opened) == 2
