"""Every kind of broken annotation is named with its line or video, all of a file's at once."""

from __future__ import annotations

import copy
import json
import pickle
import re

import pytest

from hero_plugin.integrations.data.annotations import detect_format, read_annotations, read_many, write_annotations
from hero_plugin.integrations.data.checks import ReadReport, load_durations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.support.errors import DataError, Problem, Problems
from tests.data import samples
from tests.resources import shared

DURATIONS = {"V": 10.0}
LINES = {
    "no separator here": "expected `VIDEO START END##sentence`",
    "V 1.0##too few": "expected `VIDEO START END##sentence`",
    "V one 2.0##not a number": "two finite numbers",
    "V nan 2.0##not a number": "two finite numbers",
    "V 1.0 inf##infinite": "two finite numbers",
    "V -1.0 2.0##before": "starts before its video",
    "V 3.0 3.0##no length": "end must be after its start",
    "V 5.0 3.0##turned round": "end must be after its start",
    "V 12.0 14.0##outside": "lies outside its video",
    "V 1.0 2.0##   ": "empty query",
    "V 1.0 2.0##": "empty query",
}


def problems_of(action, *args, **kwargs) -> list[Problem]:
    with pytest.raises(DataError) as caught:
        action(*args, **kwargs)
    return caught.value.problems


def test_every_broken_line_is_reported_with_its_number(tmp_path):
    good = "V 1.0 2.0##fine"
    path = samples.write(tmp_path, "a.txt", "\n".join([good, *LINES, "", good]) + "\n")
    problems = problems_of(read_annotations, path, durations=DURATIONS)
    assert [p.where for p in problems] == [f"{path}:{number}" for number in range(2, 2 + len(LINES))]
    for problem, expected in zip(problems, LINES.values(), strict=True):
        assert expected in problem.what
        assert problem.fix


@pytest.mark.parametrize("line", LINES)
def test_a_broken_line_can_be_left_out(tmp_path, line):
    path = samples.write(tmp_path, "a.txt", f"V 1.0 2.0##fine\n{line}\nV 2.0 3.0##fine too\n")
    report = ReadReport()
    records = read_annotations(path, durations=DURATIONS, on_broken="drop", report=report)
    assert [r.sentence for r in records] == ["fine", "fine too"]
    assert len(report.dropped) == 1
    with pytest.warns(UserWarning, match="left out 1 broken"):
        read_annotations(path, durations=DURATIONS, on_broken="drop")


def test_what_is_left_out_of_several_files_is_said(tmp_path):
    files = [samples.write(tmp_path, f"{name}.txt", "V 1.0 2.0##fine\nV 3.0 2.0##no\n") for name in "ab"]
    with pytest.warns(UserWarning) as said:
        assert len(read_many(files, durations=DURATIONS, on_broken="drop")) == 2
    for file, each in zip(files, said, strict=True):
        assert f"{file}: left out 1 broken queries" in str(each.message)


def test_nothing_left_is_an_error_even_when_dropping(tmp_path):
    path = samples.write(tmp_path, "a.txt", "V 3.0 2.0##no\n")
    assert problems_of(read_annotations, path, durations=DURATIONS, on_broken="drop")


def test_ends_after_the_video(tmp_path):
    path = samples.write(tmp_path, "a.txt", "V 8.0 11.5##late\n")
    report = ReadReport()
    assert read_annotations(path, durations=DURATIONS, report=report)[0].moments == ((8.0, 10.0),)
    assert report.clamped == 1
    assert read_annotations(path, durations=DURATIONS, on_outside="keep")[0].moments == ((8.0, 11.5),)
    (problem,) = problems_of(read_annotations, path, durations=DURATIONS, on_outside="error")
    assert "ends after its video of 10 s" in problem.what and "clamp" in problem.fix


def test_moments_of_queries_that_are_left_out_do_not_count_as_cut(tmp_path):
    path = samples.write(tmp_path, "a.txt", "V 5 12##fine\nV 5 12##\nV 6 11## \n")
    report = ReadReport()
    assert len(read_annotations(path, durations=DURATIONS, on_broken="drop", report=report)) == report.clamped == 1


def test_durations_must_come_from_somewhere(tmp_path):
    path = samples.write(tmp_path, "a.txt", "V 1.0 2.0##one\nW 1.0 2.0##two\nW 1.0 2.0##three\nX 5.0 3.0##bad\n")
    problems = problems_of(read_annotations, path)
    assert "no video durations" in problems[0].what and "--durations" in problems[0].fix
    assert any("end must be after" in p.what for p in problems)  # the rest of the file is checked all the same
    problems = problems_of(read_annotations, path, durations=DURATIONS, on_broken="drop")
    assert [p.what for p in problems[:2]] == ["no duration for video W", "no duration for video X"]


BAD_ENTRIES = {
    "no lists": {"duration": 10},
    "lengths": {"duration": 10, "sentences": ["a", "b"], "timestamps": [[0, 1]]},
    "duration": {"duration": -1, "sentences": ["a"], "timestamps": [[0, 1]]},
    "text": {"duration": "soon", "sentences": ["a"], "timestamps": [[0, 1]]},
    "pair": {"duration": 10, "sentences": ["a"], "timestamps": [[0, 1, 2]]},
    "null": {"duration": 10, "sentences": ["a"], "timestamps": [[None, 1]]},
    "turned": {"duration": 10, "sentences": ["a"], "timestamps": [[4, 1]]},
    "outside": {"duration": 10, "sentences": ["a"], "timestamps": [[11, 12]]},
    "empty": {"duration": 10, "sentences": ["  "], "timestamps": [[1, 2]]},
    "number": {"duration": 10, "sentences": [7], "timestamps": [[1, 2]]},
}


def test_every_broken_entry_is_reported_with_its_video(tmp_path):
    good = {"duration": 10, "sentences": ["a"], "timestamps": [[0, 1]]}
    path = samples.write(tmp_path, "a.json", {"good": good, **BAD_ENTRIES})
    problems = problems_of(read_annotations, path)
    assert [re.search(r"video (\w+)", p.where.replace("no lists", "no")).group(1) for p in problems] == [
        name.split()[0] for name in BAD_ENTRIES
    ]


def test_a_video_without_a_duration(tmp_path):
    data = {"v": {"sentences": ["a"], "timestamps": [[0, 1]]}}
    path = samples.write(tmp_path, "a.json", data)
    (problem,) = problems_of(read_annotations, path)
    assert "video v" in problem.where and "duration" in problem.what
    assert read_annotations(path, durations={"v": 5})[0].duration == 5.0


def test_a_video_twice_in_one_json_object(tmp_path):
    entry = json.dumps({"duration": 10, "sentences": ["a"], "timestamps": [[0, 1]]})
    path = samples.write(tmp_path, "a.json", f'{{"v": {entry}, "v": {entry}}}')
    (problem,) = problems_of(read_annotations, path)
    assert "occurs twice" in problem.what


BAD_ROWS = [
    ("query", "", "empty query"),
    ("query", None, "must be text"),
    ("duration", 0, "positive number"),
    ("duration", "long", "positive number"),
    ("relevant_windows", [[4, 4]], "end must be after"),
    ("relevant_windows", [[0, 2], [160, 170]], "lies outside"),
    ("relevant_windows", "0-2", "must be a list"),
    ("relevant_clip_ids", [5, 6], "need as many saliency_scores"),
    ("relevant_clip_ids", [5, 6, -1], "0 or more"),
    ("saliency_scores", [[1], [2], ["x"]], "finite numbers"),
    ("saliency_scores", [[1], [2], [float("nan")]], "finite numbers"),
    ("qid", 1, "occurs twice"),
    ("duration", 75, "lasts 75 s here, 150 s in a query before"),
]


def test_every_broken_json_line_is_reported_with_its_number(tmp_path):
    good, lines = {**samples.QVHIGHLIGHTS[0], "qid": 1}, []
    for number, (key, value, _) in enumerate(BAD_ROWS, 100):
        lines.append(json.dumps({**copy.deepcopy(good), "qid": number, key: value}))
    lines += ["{not json", json.dumps({"query": "no video"}), "[1, 2]"]
    path = samples.write(tmp_path, "a.jsonl", "\n".join([json.dumps(good), *lines]))
    problems = problems_of(read_annotations, path)
    assert [p.where for p in problems] == [f"{path}:{number}" for number in range(2, 2 + len(lines))]
    for problem, (_, _, expected) in zip(problems, BAD_ROWS, strict=False):
        assert expected in problem.what
    assert [p.what[:8] for p in problems[-3:]] == ["not JSON", "expected", "expected"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty file"),
        ("hello\nworld\n", "cannot tell its format"),
        ("[1, 2]", "cannot tell its format"),
        ('{"v": {"duration": 10, "sent', "not JSON"),
        ('{"v": {"duration": 10, "actions": []}}', "none of its 1 entries"),
        ("{}", "no queries"),
    ],
)
def test_files_that_are_something_else(tmp_path, text, expected):
    path = samples.write(tmp_path, "a.json", text)
    (problem,) = problems_of(read_annotations, path)
    assert expected in problem.what and str(path) in problem.where


def test_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"V 1.0 2.0##fine\nV 1.0 2.0##caf\xe9\n")
    (problem,) = problems_of(read_annotations, path, durations=DURATIONS)
    assert problem.where == f"{path}:2" and "UTF-8" in problem.what


def test_wrong_arguments(tmp_path):
    path = samples.write(tmp_path, "a.txt", samples.STA)
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        read_annotations(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="format must be one of"):
        read_annotations(path, format="tacos")
    with pytest.raises(ValueError, match="on_outside"):
        read_annotations(path, on_outside="cut")
    with pytest.raises(ValueError, match="on_broken"):
        read_annotations(path, on_broken="ignore")


def test_records_that_a_format_cannot_hold_leave_no_file(tmp_path):
    two = Record("q", "v", "a", ((0.0, 1.0), (2.0, 3.0)), 10.0)
    none = Record("r", "v", "a", (), 10.0)
    for format in ("charades-sta", "charades-cd", "captions"):
        problems = problems_of(write_annotations, [two, none], tmp_path / "out", format=format)
        assert len(problems) == 2 and "split" in problems[0].fix
    disagree = [Record("q", "v", "a", ((0.0, 1.0),), 10.0), Record("r", "v", "a", ((0.0, 1.0),), 11.0)]
    assert (
        "durations 10 and 11 s" in problems_of(write_annotations, disagree, tmp_path / "o", format="captions")[0].what
    )
    assert problems_of(write_annotations, [], tmp_path / "out", format="captions")
    assert list(tmp_path.iterdir()) == []


def test_durations_from_every_kind_of_file(tmp_path):
    expected = {"V": 10.0, "W": 7.5}
    nested = {video: {"video_duration": seconds} for video, seconds in expected.items()}
    rows = [{"vid": video, "duration": seconds} for video, seconds in expected.items()]
    files = [
        samples.write(tmp_path, "a.json", expected),
        samples.write(tmp_path, "b.json", nested),
        samples.write(tmp_path, "c.jsonl", rows),
        samples.write(tmp_path, "d.jsonl", rows[:1]),
        samples.write(tmp_path, "e.csv", "id,subject,length\nV,x,10.0\nW,y,7.5\n"),
    ]
    for file in (files[0], files[1], files[2], files[4]):
        assert load_durations(file) == expected
    assert load_durations(files[3]) == {"V": 10.0}
    assert load_durations([files[3], files[1]]) == expected
    assert load_durations(nested) == expected
    with pytest.raises(FileNotFoundError):
        load_durations(tmp_path / "none.json")
    for other in (99, 12):
        with pytest.raises(DataError, match=f"video V: {other} s here, 10 s in a file before"):
            load_durations([files[0], samples.write(tmp_path, "other.json", {"V": other})])
    assert load_durations([files[0], samples.write(tmp_path, "near.json", {"V": 10.5})])["V"] == 10.5
    twice = samples.write(tmp_path, "twice.jsonl", [*rows, {"vid": "V", "duration": 30}])
    assert [p.what for p in problems_of(load_durations, twice)] == ["10 s and 30 s"]
    assert problems_of(load_durations, samples.write(tmp_path, "python.csv", "id,length\nV,1_0\n"))
    nameless = samples.write(tmp_path, "nameless.jsonl", '{"vid": "V", "duration": 9}\n{"duration": 9}\n')
    assert [p.what for p in problems_of(load_durations, nameless)] == ["has no 'vid'"]
    bad = samples.write(tmp_path, "bad.json", {"V": 0, "W": "x", "X": 4})
    assert [p.where.rsplit(" ", 1)[1] for p in problems_of(load_durations, bad)] == ["V", "W"]
    assert problems_of(load_durations, samples.write(tmp_path, "f.csv", "a,b\n1,2\n"))
    assert problems_of(load_durations, samples.write(tmp_path, "f.json", "{"))
    for name in ("g.csv", "g.json"):
        (tmp_path / name).write_bytes(b"id,length\ncaf\xe9,3\n")
        (problem,) = problems_of(load_durations, tmp_path / name)
        assert "not UTF-8" in problem.what and problem.where == str(tmp_path / name)


def test_what_is_broken_in_the_real_files():
    """Charades-CD's harder split has three queries that start after their videos end, ActivityNet-CD's four
    without a length; everything else in the shared files can be read as it is."""
    problems = problems_of(read_annotations, shared("charades_cd", "charades_test_ood.json"))
    assert [p.what[:32] for p in problems] == ["the moment 7 to 8 s lies outside"] + [
        "the moment 13 to 38 s lies outsi"
    ] * 2
    problems = problems_of(read_annotations, shared("activitynet_cd", "anet_test_ood.json"))
    assert len(problems) == 4 and all("end must be after" in p.what for p in problems)


def test_detection_looks_at_the_content(tmp_path):
    late_key = {"id": 1, "note": "x" * 70000, "vid": "v"}
    assert detect_format(samples.write(tmp_path, "a.txt", samples.CAPTIONS)) == "captions"
    assert detect_format(samples.write(tmp_path, "b.json", samples.STA)) == "charades-sta"
    assert detect_format(samples.write(tmp_path, "c", [{"query": "q", "vid": "v"}])) == "qvhighlights"
    assert detect_format(samples.write(tmp_path, "d", [{"extra": 1, "query": "q", "vid": "v"}])) == "qvhighlights"
    assert detect_format(samples.write(tmp_path, "e", [{"vid": "v", **late_key}])) == "qvhighlights"
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(samples.CHARADES_CD, indent=1).encode())
    assert detect_format(path) == "charades-cd"
    assert len(read_annotations(path)) == 1


def test_messages():
    problems = Problems()
    problems.raise_if_any()
    for number in range(30):
        problems.add(f"f:{number}", "what", "the fix")
    with pytest.raises(DataError) as caught:
        problems.raise_if_any()
    message = str(caught.value)
    assert message.startswith("30 problems:") and "f:19: what" in message and "and 10 more" in message
    assert message.count("the fix") == 1
    assert str(DataError([Problem("f:1", "what", "fix")])) == "f:1: what -> fix"
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems
