"""The real command, really killed: at moments that nobody chose, by each of the signals that end a process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hero_plugin.integrations.training.run_folder import RunFolder
from tests.training.files import write_files

SIGNALS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 130}


def start(settings: Path, output: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "hero_plugin.integrations.cli", "train", "emb"]
    command += ["--config", str(settings), "--output", str(output), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def wait_for_steps(process: subprocess.Popen, checkpoint: Path, steps: int) -> None:
    """Until so many more checkpoints were written: one comes after every step."""
    seen, deadline = set(), time.monotonic() + 60
    while len(seen) <= steps and process.poll() is None and time.monotonic() < deadline:
        if checkpoint.exists():
            seen.add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_killed_run_resumes_to_the_bits_of_one_that_was_not(tmp_path):
    files = write_files(tmp_path / "data")
    settings = files.settings_file(epochs=10, checkpoint_steps=1, seed=3)
    whole = start(settings, tmp_path / "whole")
    assert whole.wait(timeout=120) == 0, whole.stderr.read()

    moments, output, hits = random.Random(), tmp_path / "killed", []
    for which, status in SIGNALS.items():
        process = start(settings, output, *(["--resume"] if hits else []))
        wait_for_steps(process, output / "last.pt", moments.randint(1, 3))
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(which)
        _, message = process.communicate(timeout=120)
        hits.append(process.returncode)
        if process.returncode:  # zero: it had finished before the signal came
            assert process.returncode == status, message
            assert "Traceback" not in message
        if process.returncode == 130:
            assert f"Resume with: hero-plugin train emb --output {output} --resume" in message
    assert hits[0] == -signal.SIGKILL
    resumed = start(settings, output, "--resume")
    assert resumed.wait(timeout=120) == 0, resumed.stderr.read()

    for name in ("last.pt", "best.pt"):
        ours, theirs = weights(output / name), weights(tmp_path / "whole" / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), hits
    one, other = (RunFolder.open(folder) for folder in (output, tmp_path / "whole"))
    drop = {"seconds"}
    assert [{k: v for k, v in line.items() if k not in drop} for line in one.history()] == [
        {k: v for k, v in line.items() if k not in drop} for line in other.history()
    ]
    assert one.results()["best"] == other.results()["best"]
    assert not list(output.glob(".*writing*"))
