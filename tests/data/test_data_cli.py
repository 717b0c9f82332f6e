"""`hero-plugin data ...` from outside: exit codes, messages, files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hero_plugin.integrations import cli
from tests.data import samples


@pytest.fixture
def place(tmp_path):
    """A folder with annotations, durations and features of the same two videos, and word vectors."""
    samples.write(tmp_path, "sta.txt", samples.STA)
    samples.write(tmp_path, "durations.json", samples.DURATIONS)
    (tmp_path / "features").mkdir()
    for video, duration in samples.DURATIONS.items():
        np.save(tmp_path / "features" / f"{video}.npy", np.ones((round(duration * 2), 4)))
    words = ["a", "person", "turn", "light", "on", "is", "the", "opens", "door", "eats", "food", "sofa"]
    np.savez(tmp_path / "words.npz", words=np.array(words), vectors=np.eye(12, 12, dtype=np.float32))
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


def test_mistakes_are_reported_in_one_message(place, capsys):
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


def test_info_shows_what_it_can_read_beside_what_it_cannot(place, capsys):
    assert run("convert", "--input", place / "sta.txt", "--durations", place / "durations.json",
               "--output", place / "good.json", "--to", "captions") == 0  # fmt: skip
    capsys.readouterr()
    assert run("info", place / "sta.txt", place / "absent.json", place / "good.json") == 2
    out, err = capsys.readouterr()
    assert "good.json" in out and "captions" in out
    assert "sta.txt" in err and "--durations" in err and "absent.json" in err


def test_check(place, capsys):
    common = ("check", "--annotations", place / "sta.txt", "--durations", place / "durations.json")
    assert run(*common, "--features", place / "features", "--words", place / "words.npz") == 0
    out = capsys.readouterr().out
    assert "2 of 2 videos are usable" in out and "median 2.0" in out and "no problems found" in out
    np.savez(place / "few.npz", words=np.array(["sofa"]), vectors=np.eye(1, 12, dtype=np.float32))
    assert run(*common, "--words", place / "few.npz") == 2
    assert "words of the queries have no vector -> give --words a table of these words" in capsys.readouterr().err
    np.save(place / "features" / "AMT7R.npy", np.full((5, 4), np.nan))
    (place / "features" / "3MSZA.npy").unlink()
    np.save(place / "features" / "other.npy", np.ones((5, 4)))
    assert run(*common, "--features", place / "features", "--problems", place / "problems.txt") == 2
    err = capsys.readouterr().err
    assert "NaN in 5 of 5 clips" in err and "video 3MSZA: 1 queries, and no features in" in err
    assert len((place / "problems.txt").read_text().splitlines()) == 2


def test_check_asks_about_moments_that_look_like_shares(tmp_path, capsys):
    entry = {"duration": 30.0, "timestamps": [[0.1, 0.4], [0.5, 1.0]], "sentences": ["a", "b"]}
    path = samples.write(tmp_path, "a.json", {"v": entry})
    assert run("check", "--annotations", path) == 2
    assert "they look like shares of the video, not seconds -> multiply them" in capsys.readouterr().err
    entry["timestamps"][0] = [3, 12]
    assert run("check", "--annotations", samples.write(tmp_path, "a.json", {"v": entry})) == 0


@pytest.mark.parametrize(("shapes", "asked"), [([(8, 5)] * 2, True), ([(5, 8)] * 2, False), ([(8, 5), (7, 5)], False)])
def test_check_asks_about_features_that_look_transposed(tmp_path, capsys, shapes, asked):
    """All as long as each other, and longer than wide, as (dim, clips) of videos cut to one length are."""
    entry = {"duration": 10.0, "timestamps": [[2, 6]], "sentences": ["a"]}
    path = samples.write(tmp_path, "a.json", {f"v{number}": entry for number in range(2)})
    (tmp_path / "features").mkdir()
    for number, shape in enumerate(shapes):
        np.save(tmp_path / "features" / f"v{number}.npy", np.ones(shape))
    assert run("check", "--annotations", path, "--features", tmp_path / "features") == 0
    question = "all have 8 clips of fewer numbers: if their axes are (dim, clips), swap them"
    assert (question in capsys.readouterr().out) is asked


def test_check_reports_all_that_is_wrong_with_any_part(place, capsys):
    bad = samples.write(place, "bad.txt", "3MSZA 3 1##a\n")
    (place / "words.txt").write_text("person 1 2\nlight 1\n")
    flags = ("--features", place / "nowhere", "--words", place / "words.txt", "--problems", place / "problems.txt")
    files = (bad, place / "none.txt", place / "sta.txt")
    assert run("check", "--annotations", *files, "--durations", place / "durations.json", *flags) == 2
    message, written = capsys.readouterr().err, (place / "problems.txt").read_text().splitlines()
    expected = ("bad.txt:1: ", "no annotation file at", "no features at", "words.txt:2: ")
    assert len(written) == len(expected)
    for line, part in zip(written, expected, strict=True):
        assert part in line and part in message
    assert run("check", "--annotations", bad, "--durations", place / "none.json", *flags) == 2
    assert "no durations file" in (place / "problems.txt").read_text()


def test_check_names_no_flag_that_it_has_not(place, capsys):
    samples.write(place, "late.txt", "3MSZA 24.3 31.5##person turn a light on.\n")
    assert run("check", "--annotations", place / "late.txt", "--durations", place / "durations.json") == 0
    out = capsys.readouterr().out
    assert "1 moments ended after their video and were cut at its end\n" in out
    assert run("check", "--annotations", place / "sta.txt", "--features", place / "features", "--max-clips", "0") == 2
    assert "--max-clips must be at least 1" in capsys.readouterr().err


def test_check_tells_videos_whose_saliency_is_not_scored(place, capsys):
    entry = {"duration": 150.0, "timestamps": [[3, 12]], "sentences": ["a"]}
    (place / "captions.json").write_text(json.dumps({"v": entry}))
    common = ("check", "--annotations", place / "captions.json", "--features", place / "features", "--clip-length", "2")
    for clips, said in ((72, True), (73, False)):
        np.save(place / "features" / "v.npy", np.ones((clips, 4)))
        assert run(*common) == 0
        assert ("v: 72 clips, 150 s" in capsys.readouterr().out) is said


def test_ids_that_occur_twice_are_numbered_anew(place, capsys):
    rows = [{**samples.QVHIGHLIGHTS[0], "qid": 7, "query": query} for query in ("one", "two")]
    source = ("--input", samples.write(place, "twice.jsonl", rows), "--output", place / "o.jsonl", "--to", "lighthouse")
    assert run("convert", *source) == 2 and "data convert --query-ids number" in capsys.readouterr().err
    assert run("convert", *source, "--query-ids", "number") == 0
    made = [json.loads(line) for line in (place / "o.jsonl").read_text().splitlines()]
    assert [(row["qid"], row["query"]) for row in made] == [(0, "one"), (1, "two")]


def test_check_tells_a_video_of_two_lengths_in_two_files(tmp_path, capsys):
    entry = {"duration": 30.0, "timestamps": [[3, 12]], "sentences": ["a"]}
    paths = [samples.write(tmp_path, f"{n}.json", {"v": {**entry, "duration": 30.0 * n}}) for n in (1, 3)]
    assert run("check", "--annotations", *paths) == 2
    assert "video v lasts 30 s and 90 s" in capsys.readouterr().err
