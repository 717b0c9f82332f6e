"""`hero-plugin data timelines` and its figures from outside: exit codes, messages, files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hero_plugin.integrations import cli
from hero_plugin.integrations.data.features import open_features
from tests.data.samples import write
from tests.tools.timelines.conftest import RECORDS, TIMELINES, WORDS


@pytest.fixture
def place(tmp_path):
    """A folder with timelines of three videos, annotations and word vectors."""
    timelines = {
        name: {
            "duration": t.duration,
            "actions": [[int(c), float(s), float(e)] for c, s, e in zip(t.classes, t.starts, t.ends, strict=True)],
        }
        for name, t in TIMELINES.items()
    }
    write(tmp_path, "timelines.json", timelines)
    lines = [f"{r.video_id} {r.moments[0][0]} {r.moments[0][1]}##{r.sentence}" for r in RECORDS]
    write(tmp_path, "train.txt", "\n".join(lines) + "\n")
    np.savez(tmp_path / "words.npz", words=np.array(WORDS.words), vectors=WORDS.vectors)
    return tmp_path


def run(*words):
    return cli.main(["data", *map(str, words)])


def timelines(place, *more):
    files = ("--timelines", place / "timelines.json", "--annotations", place / "train.txt")
    return run("timelines", *files, "--words", place / "words.npz", "--output", place / "rendered", *more)


def test_timelines(place, capsys):
    assert timelines(place, "--dim", "16", "--noise", "0.5") == 0
    assert "3 videos rendered, 0 were there" in capsys.readouterr().out
    assert open_features(place / "rendered")["A"].shape == (40, 16)
    assert timelines(place, "--dim", "16", "--noise", "0.5") == 2
    assert "--resume" in capsys.readouterr().err
    assert timelines(place, "--dim", "16", "--noise", "0.5", "--resume") == 0
    assert "0 videos rendered, 3 were there" in capsys.readouterr().out
    assert timelines(place, "--noise", "-1") == 2


def test_timelines_of_some_videos(place):
    some = write(place, "some.txt", "B 1 2##a person.\n")
    assert timelines(place, "--videos-of", some) == 0
    assert open_features(place / "rendered").keys() == ["B"]


@pytest.mark.slow
def test_timelines_figure(place, capsys):
    files = ("--timelines", place / "timelines.json", "--annotations", place / "train.txt")
    common = ("timelines-figure", *files, "--words", place / "words.npz", "--output", place / "a.png")
    assert run(*common, "--video", "A") == 0
    assert (place / "a.png").read_bytes().startswith(b"\x89PNG")
    assert run(*common, "--video", "nobody") == 2
    assert run(*common, "--video", "A", "--output", place / "a.PDF") == 0
    assert (place / "a.PDF").read_bytes().startswith(b"%PDF")
    capsys.readouterr()
    assert run(*common, "--video", "A", "--output", place / "a.foo") == 2
    assert "must end in .png, .pdf or .svg" in capsys.readouterr().err


def test_timelines_oracle(place, capsys):
    files = ("--timelines", place / "timelines.json", "--annotations", place / "train.txt")
    more = ("--test", place / "train.txt", "--words", place / "words.npz", "--noise", "0", "1")
    assert run("timelines-oracle", *files, *more) == 0
    assert "R1@0.5" in capsys.readouterr().out
    with open(place / "train.txt", "a") as file:
        file.write("A 6 2##a person opens the door.\n")
    with pytest.warns(UserWarning, match=r"train\.txt: left out 1 broken queries"):
        assert run("timelines-oracle", *files, *more) == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_leaves_only_whole_files_and_resumes(place):
    many = {f"V{i:04}": {"duration": 60.0, "actions": [[8, 1.0, 20.0]]} for i in range(4000)} | json.loads(
        (place / "timelines.json").read_text()
    )
    write(place, "timelines.json", many)
    words = ("--timelines", "timelines.json", "--annotations", "train.txt", "--words", "words.npz", "--output", "out")
    program = [sys.executable, "-m", "hero_plugin.integrations.cli", "data", "timelines", *words]
    process = subprocess.Popen(program, cwd=place, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(place.glob("out/*.npy"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in err and "Traceback" not in err
    files = sorted((place / "out").glob("*"))
    assert 20 <= len(files) < 4003 and not list((place / "out").glob(".*"))
    assert all(np.load(file).shape[1] == 256 for file in files if file.suffix == ".npy")
