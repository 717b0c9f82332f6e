"""`hero-plugin data ...` from outside: exit codes, messages, files."""

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
from tests.data import samples
from tests.tools.timelines.test_timelines import RECORDS, TIMELINES, WORDS


@pytest.fixture
def place(tmp_path):
    """A folder with annotations, durations, features, word vectors and timelines of the same two videos."""
    samples.write(tmp_path, "sta.txt", samples.STA)
    samples.write(tmp_path, "durations.json", samples.DURATIONS)
    (tmp_path / "features").mkdir()
    for video, duration in samples.DURATIONS.items():
        np.save(tmp_path / "features" / f"{video}.npy", np.ones((round(duration * 2), 4)))
    np.savez(tmp_path / "words.npz", words=np.array(WORDS.words), vectors=WORDS.vectors)
    timelines = {
        name: {
            "duration": t.duration,
            "actions": [[int(c), float(s), float(e)] for c, s, e in zip(t.classes, t.starts, t.ends, strict=True)],
        }
        for name, t in TIMELINES.items()
    }
    samples.write(tmp_path, "timelines.json", timelines)
    lines = [f"{r.video_id} {r.moments[0][0]} {r.moments[0][1]}##{r.sentence}" for r in RECORDS]
    samples.write(tmp_path, "train.txt", "\n".join(lines) + "\n")
    return tmp_path


def run(*words):
    return cli.main(["data", *map(str, words)])


def convert(place, *more, output="out.jsonl", to="qvhighlights"):
    source = ("--input", place / "sta.txt", "--durations", place / "durations.json")
    return run("convert", *source, "--output", place / output, "--to", to, *more)


def test_convert(place, capsys):
    assert convert(place, "--query-ids", "number", "--saliency", "inside", "--clip-length", "1") == 0
    assert "2 queries of 2 videos, charades-sta -> qvhighlights" in capsys.readouterr().out
    first = json.loads((place / "out.jsonl").read_text().split("\n")[0])
    assert first["qid"] == 0 and first["relevant_clip_ids"] == [24, 25, 26, 27, 28, 29]
    assert first["saliency_scores"][0] == [4, 4, 4]
    assert run("convert", "--input", place / "out.jsonl", "--output", place / "back.txt", "--to", "charades-sta") == 0
    assert (place / "back.txt").read_text() == samples.STA


@pytest.mark.parametrize("target", ["charades-sta", "charades-cd", "activitynet", "lighthouse"])
def test_convert_to_each(place, target):
    assert convert(place, "--period", "strip", to=target) == 0
    assert (place / "out.jsonl").exists()


def test_durations_from_features(place):
    source = ("--input", place / "sta.txt", "--output", place / "out.json", "--to", "captions")
    features = ("--durations-from-features", place / "features", "--clips-per-second", "2")
    assert run("convert", *source, *features) == 0
    assert json.loads((place / "out.json").read_text())["AMT7R"]["duration"] == 20.0
    assert run("convert", *source, "--overwrite", "--durations-from-features", place / "features") == 2


def test_mistakes_are_told_in_one_message(place, capsys):
    def complaint(code):
        assert code == 2
        return capsys.readouterr().err

    assert "--durations" in complaint(
        run("convert", "--input", place / "sta.txt", "--output", place / "o", "--to", "captions")
    )
    assert "no annotation file" in complaint(
        run("convert", "--input", place / "none", "--output", place / "o", "--to", "captions")
    )
    assert "must be positive" in complaint(convert(place, "--clip-length", "-1"))
    bad = samples.write(place, "bad.txt", "V 3 1##a\nV 1 2\n")
    message = complaint(run("convert", "--input", bad, "--output", place / "o", "--to", "captions"))
    assert "bad.txt:1" in message and "bad.txt:2" in message and "Traceback" not in message
    assert not (place / "o").exists()
    assert convert(place) == 0
    capsys.readouterr()
    assert "exists already" in complaint(convert(place))
    assert convert(place, "--overwrite") == 0
    assert "exists already" in complaint(convert(place, "--overwrite", output="sta.txt"))
    assert (place / "sta.txt").read_text() == samples.STA


def test_info(place, capsys):
    assert run("info", place / "sta.txt", "--durations", place / "durations.json") == 0
    assert "charades-sta" in capsys.readouterr().out


def test_check(place, capsys):
    common = ("check", "--annotations", place / "sta.txt", "--durations", place / "durations.json")
    assert run(*common, "--features", place / "features", "--words", place / "words.npz") == 0
    out = capsys.readouterr().out
    assert "2 of 2 videos are usable" in out and "median 2.0" in out and "no problems found" in out
    np.save(place / "features" / "AMT7R.npy", np.full((5, 4), np.nan))
    (place / "features" / "3MSZA.npy").unlink()
    np.save(place / "features" / "other.npy", np.ones((5, 4)))
    assert run(*common, "--features", place / "features", "--problems", place / "problems.txt") == 2
    err = capsys.readouterr().err
    assert "NaN in 5 of 5 clips" in err and "no features of video '3MSZA'" in err
    assert len((place / "problems.txt").read_text().splitlines()) == 2


def test_check_tells_all_that_is_wrong_with_any_part(place, capsys):
    bad = samples.write(place, "bad.txt", "3MSZA 3 1##a\n")
    (place / "words.txt").write_text("person 1 2\nlight 1\n")
    flags = ("--features", place / "nowhere", "--words", place / "words.txt", "--problems", place / "problems.txt")
    files = (bad, place / "none.txt", place / "sta.txt")
    assert run("check", "--annotations", *files, "--durations", place / "durations.json", *flags) == 2
    told, written = capsys.readouterr().err, (place / "problems.txt").read_text().splitlines()
    expected = ("bad.txt:1: ", "no annotation file at", "no features at", "words.txt:2: ")
    assert len(written) == len(expected)
    for line, part in zip(written, expected, strict=True):
        assert part in line and part in told
    assert run("check", "--annotations", bad, "--durations", place / "none.json", *flags) == 2
    assert "no durations file" in (place / "problems.txt").read_text()


def test_check_names_no_flag_that_it_has_not(place, capsys):
    samples.write(place, "late.txt", "3MSZA 24.3 31.5##person turn a light on.\n")
    assert run("check", "--annotations", place / "late.txt", "--durations", place / "durations.json") == 0
    out = capsys.readouterr().out
    assert "1 moments ended after their video and were cut at its end\n" in out
    assert run("check", "--annotations", place / "sta.txt", "--features", place / "features", "--max-clips", "0") == 2
    assert "--max-clips must be at least 1" in capsys.readouterr().err


def test_ids_that_occur_twice_are_numbered_anew(place, capsys):
    rows = [{**samples.QVHIGHLIGHTS[0], "qid": 7, "query": query} for query in ("one", "two")]
    source = ("--input", samples.write(place, "twice.jsonl", rows), "--output", place / "o.jsonl", "--to", "lighthouse")
    assert run("convert", *source) == 2 and "data convert --query-ids number" in capsys.readouterr().err
    assert run("convert", *source, "--query-ids", "number") == 0
    made = [json.loads(line) for line in (place / "o.jsonl").read_text().splitlines()]
    assert [(row["qid"], row["query"]) for row in made] == [(0, "one"), (1, "two")]


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
    some = samples.write(place, "some.txt", "B 1 2##a person.\n")
    assert timelines(place, "--videos-of", some) == 0
    assert open_features(place / "rendered").keys() == ["B"]


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
    files = (
        "--timelines",
        place / "timelines.json",
        "--annotations",
        place / "train.txt",
        "--test",
        place / "train.txt",
    )
    assert run("timelines-oracle", *files, "--words", place / "words.npz", "--noise", "0", "1") == 0
    assert "R1@0.5" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_leaves_only_whole_files_and_resumes(place):
    many = {f"V{i:04}": {"duration": 60.0, "actions": [[8, 1.0, 20.0]]} for i in range(4000)} | json.loads(
        (place / "timelines.json").read_text()
    )
    samples.write(place, "timelines.json", many)
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
