"""Submissions: what is written, what is read back, and everything that can be wrong with one."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from hero_plugin.integrations import cli
from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.scoring.submissions import (
    clips_are_scored,
    official_scores,
    read_submission,
    submission_line,
    unscored_videos,
    write_submission,
)
from hero_plugin.integrations.support.errors import DataError

SALIENCY = tuple((clip, (4.0, 3.0, 2.0)) for clip in range(3))


def record(number: int, **changes: object) -> Record:
    moments = ((0.0, 8.0), (10.0, 40.0), (20.0, 60.0))
    return Record(str(number), f"v{number}", f"query {number}", moments, 60.0, saliency=SALIENCY).replace(**changes)


RECORDS = [record(number) for number in range(1, 4)]


def line(number: int | str, **changes: object) -> dict[str, object]:
    windows, saliency = [[0, 8, 0.9], [20.5, 60, 0.5]], [0.5] * 30
    return {"qid": number, "pred_relevant_windows": windows, "pred_saliency_scores": saliency, **changes}


def without(number: int, *keys: str) -> dict[str, object]:
    return {key: value for key, value in line(number).items() if key not in keys}


GOOD = [line(1), line(2), line(3)]


@pytest.fixture
def submitted(tmp_path):
    def write(*lines: object):
        path = tmp_path / "sub.jsonl"
        path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))
        return path

    return write


def test_a_line_is_sorted_rounded_and_has_the_id_of_its_file():
    windows, scores = np.array([[0, 5.00004], [1, 2.123456], [3, 4]]), [0.2, 0.55555, 0.2]
    made = submission_line(record(7), windows, scores, np.array([-0.00001, 0.123456], np.float32))
    assert made == {
        "qid": 7,
        "query": "query 7",
        "vid": "v7",
        "pred_relevant_windows": [[1.0, 2.1235, 0.5556], [0.0, 5.0, 0.2], [3.0, 4.0, 0.2]],
        "pred_saliency_scores": [0.0, 0.1235],
    }
    assert math.copysign(1, made["pred_saliency_scores"][0]) == 1
    assert submission_line(record(7, extra={"qid": "7"}), windows, scores)["qid"] == "7"


@pytest.mark.parametrize(
    ("windows", "scores", "saliency", "said"),
    [
        ([0, 1], [1], None, r"windows must be \(K, 2\)"),
        (np.zeros((0, 2)), [], None, "at least one window"),
        ([[0, 1]], [1, 2], None, r"scores must be \(K,\)=\(1,\), one per window, got \(2,\)"),
        ([[0, math.nan]], [1], None, "windows and scores must be finite"),
        ([[0, 1]], [1], [math.inf, 1], "saliency must be finite, got 1 that are not"),
        ([[0, 1]], [1], [[1]], r"saliency must be \(T,\)"),
    ],
)
def test_a_line_of_other_shapes_is_refused(windows, scores, saliency, said):
    with pytest.raises(ValueError, match=said):
        submission_line(record(1), windows, scores, saliency)


def test_a_window_ends_with_its_video():
    made = submission_line(record(7, duration=30.12346), [[28, 32], [12, 30.12346], [31, 32]], [0.9, 0.5, 0.1])
    ends = [window[:2] for window in made["pred_relevant_windows"]]
    assert ends == [[28.0, 30.12346], [12.0, 30.12346], [30.12346, 30.12346]]


def test_records_of_which_some_have_saliency_are_refused():
    with pytest.raises(ValueError, match="2 of 3 records have saliency"):
        official_scores(GOOD, [*RECORDS[:2], record(3, saliency=())])


def test_what_is_written_is_read_back_and_scores_alike(tmp_path):
    draw = np.random.default_rng(0)
    lines = [
        submission_line(each, draw.random((12, 2)).cumsum(axis=1) * 30, draw.random(12), draw.random(30))
        for each in RECORDS
    ]
    assert write_submission(tmp_path / "sub.jsonl", iter(lines)) == 3
    read = read_submission(tmp_path / "sub.jsonl", RECORDS)
    assert [each["pred_relevant_windows"] for each in read.lines] == [each["pred_relevant_windows"] for each in lines]
    assert official_scores(read.lines, RECORDS) == official_scores(lines, RECORDS[::-1])
    assert read.notes == ("3 queries with more than 10 windows: the first 10 count",)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "sub.jsonl"
    write_submission(path, GOOD)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_submission(path, [line(1), {"qid": math.nan}])
    assert len(path.read_text().splitlines()) == 3
    assert [each.name for each in tmp_path.iterdir()] == ["sub.jsonl"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(1), line(2)], "1 of the 3 qids of the annotations missing: 3"),
        ([*GOOD, line(9)], "1 qid unknown to the annotations: 9"),
        ([*GOOD, line(2)], r"1 qid more than once: 2 \(lines 2, 4\)"),
        ([line(1), line(2), line("3")], "1 qid of another type than in the annotations: '3' for 3"),
        ([*GOOD, "{no"], r"sub.jsonl:4: not JSON \(.* at column 2\)"),
        ([*GOOD, "[1]"], "sub.jsonl:4: expected an object with a qid, a number or text, got a list"),
        ([*GOOD, line(True)], "a number or text, got True"),
        ([*GOOD, {"vid": "v"}], "a number or text, got None"),
        ([*GOOD, line([1])], r"a number or text, got \[1\]"),
        ([], "no lines in this file"),
        ([line(1), line(2), line(3, pred_relevant_windows=[])], r"sub.jsonl:3: qid 3: .* one or more .*, got \[\]"),
        ([line(1), line(2), line(3, pred_relevant_windows=[[1, 2]])], r"window 1 must be .*, got \[1, 2\]"),
        ([line(1), line(2), line(3, pred_relevant_windows=[[1, 2, 3], [1, "2", 3]])], "window 2 must be"),
        ([line(1), line(2), line(3, pred_relevant_windows=[[1, 2, True]])], "window 1 must be"),
        ([line(1), line(2), line(3, pred_relevant_windows=[[0, 1, math.nan]])], r"finite numbers, got \[0, 1, nan\]"),
        ([line(1), line(2), line(3, pred_relevant_windows=[[0, 10**400, 1]])], "finite numbers"),
        ([line(1), line(2), line(3, pred_saliency_scores=[1, -math.inf] * 15)], "finite, got -inf for clip 1"),
        ([line(1), line(2), line(3, pred_saliency_scores=[None] * 30)], "must be a list of numbers, got"),
        ([line(1), line(2), line(3, pred_saliency_scores=[])], r"must be a list of numbers, got \[\]"),
        ([line(1), line(2), line(3, pred_saliency_scores=[0.1] * 27)], "27 .* video of 30 clips"),
        ([line(1), line(2), line(3, pred_saliency_scores=[0.1] * 33)], "33 .* video of 30 clips"),
        (
            [line(1), line(2), without(3, "pred_saliency_scores")],
            "2 lines have pred_saliency_scores, 1 have not: lines 3",
        ),
        (
            [without(1, "pred_relevant_windows"), line(2), line(3)],
            "2 lines have pred_relevant_windows, 1 have not: lines 1",
        ),
        ([{"qid": number} for number in (1, 2, 3)], "no line has pred_relevant_windows or pred_saliency_scores"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(submitted, lines, said):
    with pytest.raises(DataError, match=said) as raised:
        read_submission(submitted(*lines), RECORDS)
    assert len(raised.value.problems) == 1


def test_everything_wrong_comes_at_once(submitted):
    wrong = [line(1, pred_relevant_windows=[]), "no", line(2), line(2), line("3"), line(9), line(10)]
    records = [record(number) for number in range(1, 5)]
    with pytest.raises(DataError) as raised:
        read_submission(submitted(*wrong), records)
    said = [re.sub(r"^.*sub\.jsonl", "", str(problem)).split(" -> ")[0] for problem in raised.value.problems]
    assert said == [
        ": 1 qid more than once: 2 (lines 3, 4)",
        ": 1 qid of another type than in the annotations: '3' for 3",
        ": 1 of the 4 qids of the annotations missing: 4",
        ": 2 qids unknown to the annotations: 9, 10",
        ":2: not JSON (Expecting value at column 1)",
        ":1: qid 1: pred_relevant_windows must be one or more [start, end, score], got []",
    ]


def test_a_long_list_is_cut_and_counted(submitted):
    records = [record(number) for number in range(100)]
    bad = [line(number, pred_relevant_windows=None) for number in range(60)]
    with pytest.raises(DataError) as raised:
        read_submission(submitted(*bad), records)
    message = str(raised.value)
    assert "missing: 60, 61, 62, 63, 64, 65, 66, 67, 68, 69 and 30 more" in message
    assert "61 problems" in message and "... and 41 more" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pred_saliency_scores": [0.5] * 28}, "1 query whose saliency is up to 2 clips too short"),
        ({"pred_relevant_windows": [[0, 8, 0.1], [1, 2, 0.5]]}, "1 query whose first window has not the highest score"),
        ({"pred_relevant_windows": [[8, 0, 0.1]]}, "1 query with a window that ends before it starts"),
        ({"pred_relevant_windows": [[80, 90, 0.1]]}, "1 query with a window that starts after its video's end"),
    ],
)
def test_what_is_odd_but_scored_is_noted(submitted, changes, said):
    (note,) = read_submission(submitted(line(1, **changes), *GOOD[1:]), RECORDS).notes
    assert note.startswith(said)


def test_windows_that_look_like_shares_of_the_video_are_noted(submitted):
    shares = [line(number, pred_relevant_windows=[[0.1, 0.6, 0.9]]) for number in (1, 2, 3)]
    (note,) = read_submission(submitted(*shares), RECORDS).notes
    assert note == "no window ends after the first second: they look like shares of the video, not seconds"


def test_partial_scores_what_is_shared(submitted):
    read = read_submission(submitted(line(2), line(9)), RECORDS, partial=True)
    assert [each["qid"] for each in read.lines] == [each["qid"] for each in read.annotations] == [2]
    assert read.notes == (
        "partial: 1 query scored, 2 of 3 annotated ones not submitted, 1 submitted ones not annotated",
    )
    assert read_submission(submitted(*GOOD), RECORDS, partial=True).notes == ()
    with pytest.raises(DataError, match="no qid of its 1 lines is in the annotations: 9"):
        read_submission(submitted(line(9)), RECORDS, partial=True)
    with pytest.raises(DataError, match="of another type"):
        read_submission(submitted(line("1"), line(2)), RECORDS, partial=True)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([record(1), record(2, saliency=())], "1 query without relevant_clip_ids and saliency_scores: 2"),
        ([record(1), record(2, moments=())], "1 query without relevant_windows: 2"),
        ([record(number, moments=(), saliency=()) for number in (1, 2)], "holds no labels of what the submission"),
        ([record(1), record(2, saliency=((30, (1.0,) * 3),))], r"query 2: clips must be 0 to 29 .*, got \[30\]"),
        ([record(1), record(2, saliency=((1, (1.0,)),))], r"query 2: scores must be"),
    ],
)
def test_annotations_that_cannot_score_are_named(submitted, records, said):
    with pytest.raises(DataError, match=said):
        read_submission(submitted(line(1), line(2)), records)


@pytest.fixture
def files(tmp_path, submitted):
    """Annotations of every length range, one video of 300 s among them, and a submission."""
    rows = []
    for number, duration in ((1, 150), (2, 300)):
        row = {"qid": number, "query": "q", "duration": duration, "vid": f"v{number}"}
        windows = [[0, 8], [20, 60], [40, 60], [0, duration]]
        saliency = {"relevant_clip_ids": [0, duration // 2 - 1], "saliency_scores": [[4, 3, 2], [1, 2, 4]]}
        rows.append({**row, "relevant_windows": windows, **saliency})
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {"pred_relevant_windows": [[0, 8, 0.9], [20, 58, 0.8]]}
    sub = submitted(*(line(n, **scores, pred_saliency_scores=[2, *[1] * (c - 1)]) for n, c in ((1, 75), (2, 150))))
    return tmp_path, ["eval", "--submission", str(sub), "--annotations", str(tmp_path / "truth.jsonl")]


def run(capsys, *argv: str) -> tuple[int, str, str]:
    try:
        status = cli.main(argv)
    except SystemExit as leaving:
        status = leaving.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_prints_a_table_and_writes_json_and_a_figure(capsys, files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    folder, argv = files
    status, out, err = run(capsys, *argv, "--json", str(folder / "o.json"), "--figure", str(folder / "o.png"))
    assert status == 0, err
    written = json.loads((folder / "o.json").read_text())
    assert written["brief"]["MR-short-mAP"] == 100.0
    for name in ("short", "middle", "long", "full"):
        row = next(row for row in out.splitlines() if f"│ {name} " in row)
        assert f"{written['brief'][f'MR-{name}-mAP']:.2f}" in row
    for name in ("Fair", "Good", "VeryGood"):
        row = next(row for row in out.splitlines() if f"│ {name} (" in row)
        figures = written[f"HL-min-{name}"]
        assert f"{figures['HL-mAP']:.2f}" in row and f"{figures['HL-Hit1']:.2f}" in row
    assert (folder / "o.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("form", ["charades-sta", "qvhighlights"])
def test_annotations_without_saliency_give_moments_alone(capsys, tmp_path, form):
    (tmp_path / "durations.json").write_text('{"v1": 51.0}')
    (tmp_path / "truth").write_text("v1 0.0 12.0##a person sits down\nv1 3.0 50.5##a person eats\n")
    durations = tmp_path / "durations.json"
    records = read_annotations(tmp_path / "truth", durations=durations)
    write_submission(tmp_path / "sub", [submission_line(each, [[1, 11]], [0.9], [0.5] * 25) for each in records])
    if form == "qvhighlights":
        write_annotations(records, tmp_path / "truth", format=form)
    flags = ["--annotations", str(tmp_path / "truth"), "--durations", str(durations)]
    status, out, err = run(capsys, "eval", "--submission", str(tmp_path / "sub"), *flags, "--json", str(tmp_path / "o"))
    assert status == 0, err
    assert "pred_saliency_scores is not scored" in " ".join(out.split())
    written = json.loads((tmp_path / "o").read_text())
    assert not any(key.startswith("HL") for key in written)
    assert written["brief"]["MR-middle-mAP"] == 70.0  # 10 of 12 s reach 7 of the 10 overlaps
    assert written["brief"]["MR-short-mAP"] is None  # no query there, and JSON has no nan
    assert "│      - │" in out


def test_a_bad_submission_ends_with_one_message_and_status_2(capsys, files):
    folder, argv = files
    (folder / "sub.jsonl").write_text(json.dumps(line("1")) + "\n")
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert "2 problems" in err and "'1' for 1" in err and "missing: 2" in err and "--partial" in err


@pytest.mark.parametrize("answered", [True, False])
def test_broken_annotations_can_be_left_out(capsys, files, answered):
    folder, argv = files
    row = {"query": "q", "vid": "v", "duration": 150, "relevant_windows": [[8, 2]]}
    with open(folder / "truth.jsonl", "a") as stream:
        stream.writelines(json.dumps({**row, "qid": qid}) + "\n" for qid in (7, "8"))
    if answered:
        with open(folder / "sub.jsonl", "a") as stream:
            stream.writelines(json.dumps(line(qid)) + "\n" for qid in (7, "8"))
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "") and "--on-broken drop" in err
    status, out, err = run(capsys, *argv, "--on-broken", "drop", "--json", str(folder / "o.json"))
    assert status == 0, err
    said = " ".join(out.split())
    assert "left out 2 broken queries of" in said and ("2 lines are about queries left out" in said) == answered
    assert json.loads((folder / "o.json").read_text())["brief"]["MR-short-mAP"] == 100.0
    with open(folder / "sub.jsonl", "a") as stream:
        stream.write(json.dumps(line(9)) + "\nno\n")
    status, _, err = run(capsys, *argv, "--on-broken", "drop")
    assert status == 2 and "1 qid unknown" in err
    assert f"{folder / 'sub.jsonl'}:{6 if answered else 4}: not JSON" in err


@pytest.mark.parametrize("form", ["charades-sta", "captions"])
def test_ids_that_a_format_has_not_are_left_out_alike(capsys, tmp_path, form):
    durations, moments = tmp_path / "durations.json", ((0.0, 12.0), (9.0, 3.0), (3.0, 50.5))
    durations.write_text('{"v": 51.0}')
    text = "".join(f"v {start} {end}##a person sits\n" for start, end in moments)
    entry = {"duration": 51.0, "timestamps": moments, "sentences": ["a person sits"] * 3}
    (tmp_path / "truth").write_text(text if form == "charades-sta" else json.dumps({"v": entry}))
    lines = [{"qid": f"v_{place}", "pred_relevant_windows": [[1, 11, 0.9]]} for place in range(3)]
    (tmp_path / "sub").write_text("".join(json.dumps(each) + "\n" for each in lines))
    argv = ["--submission", tmp_path / "sub", "--annotations", tmp_path / "truth", "--durations", durations]
    status, out, err = run(capsys, "eval", *map(str, argv), "--on-broken", "drop")
    assert status == 0, err
    assert "1 lines are about queries left out" in " ".join(out.split())


def test_help_shows_both_commands_and_neither_is_an_error(capsys):
    status, out, _ = run(capsys, "eval", "--help")
    assert status == 0
    assert all(flag in out for flag in ("--run", "--checkpoint", "--submission", "--partial", "--figure"))
    status, _, err = run(capsys, "eval")
    assert status == 2
    assert "--run " in err and "--submission " in err


def test_a_submission_that_is_not_there_is_said(capsys, files):
    folder, argv = files
    (folder / "sub.jsonl").unlink()
    status, _, err = run(capsys, *argv)
    assert status == 2 and "no submission" in err


def test_lines_about_other_videos_or_sentences_under_the_same_qids_are_refused(submitted):
    same = [{**each, "vid": f"v{each['qid']}", "query": f"Query {each['qid']}."} for each in GOOD]
    assert read_submission(submitted(*same), RECORDS).notes == ()
    with pytest.raises(DataError, match=r"1 qid of another video than in the annotations: 2 \(line 2\) has 'v9', not"):
        read_submission(submitted(same[0], {**same[1], "vid": "v9"}, same[2]), RECORDS)
    corrected = [same[0], {**same[1], "query": "a query 2"}, same[2]]
    (note,) = read_submission(submitted(*corrected), RECORDS).notes
    assert note.startswith(
        "1 qid of another sentence than in the annotations: 2 (line 2) has 'a query 2', not 'query 2'"
    )
    with pytest.raises(DataError, match="3 qids of another sentence than in the annotations"):
        read_submission(submitted(*({**each, "query": "a dog"} for each in same)), RECORDS)
    with pytest.raises(DataError, match="1 qid of another sentence"):  # of those lines that say it, most
        read_submission(submitted({**GOOD[0], "query": "a dog"}, *GOOD[1:]), RECORDS)


@pytest.mark.parametrize(
    ("clips", "durations", "clip_length", "fits"),
    [
        ([75, 63], [150.0, 126.0], 2.0, True),
        ([75, 63], [150.0, 126.0], 0.0, True),
        ([73], [150.0], 0.0, True),  # two short
        ([15, 10, 10], [30.96, 20.5, 20.5], 0.0, True),  # a part of a clip at the end
        ([74, 9, 75], [150.0, 20.5, 150.0], 0.0, True),  # a short one that lacks a clip, among others
        ([8], [20.0], 0.0, False),  # of 2.5 s
        ([8], [20.0], 2.5, False),
        ([12], [20.0], 0.0, False),
        ([150], [150.0], 1.0, False),
        ([60], [150.0], 2.0, False),  # cut
    ],
)
def test_saliency_is_of_clips_of_two_seconds(clips, durations, clip_length, fits):
    assert clips_are_scored(clips, durations, clip_length) is fits


def test_of_a_set_whose_saliency_is_not_scored_the_videos_are_named():
    records = [Record(f"q{n}", f"v{n}", "a", ((0.0, 2.0),), 150.0) for n in range(3)]
    assert unscored_videos(records, [75, 73, 72], 2.0) == {"v2": "v2 (72 clips, 150 s)"}
    assert unscored_videos(records, [75, 73, 77], 2.0) == {}
    short = records[0].replace(duration=20.5)  # alone, its clips might be of 2.28 s
    assert list(unscored_videos([short], [9])) == ["v0"] and unscored_videos([short, *records[1:]], [9, 74, 75]) == {}
