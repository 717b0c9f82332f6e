"""What the tests of videos share; all of them need PyAV."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.tools.video.movies import Event, save_clip, write_movie

EVENTS = [Event("red", "square", 1.0, 6.0), Event("blue", "disc", 8.0, 12.0)]


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    pytest.importorskip("transformers")
    return save_clip(tmp_path_factory.mktemp("encoders") / "clip")


@pytest.fixture(scope="session")
def movie(tmp_path_factory):
    """A file of 15.5 s with B-frames."""
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("movies") / "plain.mp4"
    write_movie(path, EVENTS, 15.5)
    return path


@pytest.fixture(scope="session")
def ffmpeg():
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        pytest.skip("ffmpeg is not installed")

    def run(*words, binary="ffmpeg"):
        loud = ["-v", "error"] + (["-y"] if binary == "ffmpeg" else [])
        return subprocess.run([binary, *loud, *map(str, words)], check=True, capture_output=True).stdout

    return run
