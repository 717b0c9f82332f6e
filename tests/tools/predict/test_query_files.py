"""Files of queries: what is read, how they are cut, and what cannot be answered."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.integrations import cli
from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.formats import qid
from hero_plugin.integrations.support.errors import DataError
from hero_plugin.integrations.tools.predict.model import StreamedQueries
from hero_plugin.integrations.tools.predict.queries import Query, open_queries
from hero_plugin.integrations.training.queries import QueryFolder
from tests.data.samples import CHARADES_CD, STA, write
from tests.resources import shared
from tests.tools.predict.conftest import rows


def read(path, step=2, **options):
    queries = open_queries(path, step, **options)
    windows = range(-(-queries.size // step))
    return [asked for _, window in queries.windows(windows) for asked in window]


@given(
    st.lists(st.sampled_from(["", "a", "a person opens", "é"]), min_size=1, max_size=30),
    st.integers(1, 7),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_windows_hold_every_line_once(tmp_path_factory, sentences, step, end, ended):
    path = tmp_path_factory.mktemp("lines") / "queries.txt"
    text = end.join(["first", *sentences]) + (end if ended else "")
    path.write_bytes(text.encode())
    queries = open_queries(path, step, sentences=True)
    windows = dict(queries.windows(range(-(-queries.size // step))))
    assert [asked.sentence for window in windows.values() for asked in window] == [
        line for line in ["first", *sentences] if line
    ]
    for number, window in windows.items():
        assert [each for _, window in queries.windows(range(number, number + 1)) for each in window] == window


def test_ids_are_those_that_the_readers_of_annotations_give(tmp_path):
    write(tmp_path, "cd.json", CHARADES_CD)
    write(tmp_path, "sta.txt", STA)
    durations = {asked.video: 100.0 for asked in read(tmp_path / "sta.txt")}
    for name in ("cd.json", "sta.txt"):
        theirs = read_annotations(tmp_path / name, durations=durations, on_broken="drop")
        ours = {asked.query_id: asked.record(1.0) for asked in read(tmp_path / name)}
        for record in theirs:
            assert ours[record.query_id].sentence == record.sentence
            assert ours[record.query_id].video_id == record.video_id


def test_a_line_may_call_its_id_query_id(tmp_path):
    named = [{"query_id": f"q{7 - place}", "query": "a dog", "vid": "v", "duration": 20} for place in range(2)]
    lines = [*named, {"qid": 3, "query_id": "other", "query": "a cat", "vid": "v", "duration": 20}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    ids = ["q7", "q6", "3"]
    assert [record.query_id for record in read_annotations(tmp_path / "q.jsonl")] == ids
    assert [asked.query_id for asked in read(tmp_path / "q.jsonl")] == ids


@pytest.mark.parametrize("parts", [("charades_cd", "charades_test_ood.json"), ("charades", "charades_sta_test.txt")])
def test_published_files_are_read_whole(parts):
    path = shared(*parts)
    timelines = shared("charades", "action_timelines.json")
    theirs = read_annotations(path, durations=timelines, on_broken="drop")
    ours = {asked.query_id: asked.record(1.0) for asked in read(path, 100) if not asked.wrong}
    assert all(ours[record.query_id].sentence == record.sentence for record in theirs)


def test_ids_that_are_text_stay_text(tmp_path):
    path = tmp_path / "q.jsonl"
    given = [{"qid": "12", "vid": "v", "query": "a"}, {"qid": 12, "vid": "v", "query": " b  c "}]
    path.write_text("\n".join(map(json.dumps, given)))
    assert [qid(asked.record(1.0)) for asked in read(path)] == ["12", 12]
    assert read(path)[1].record(1.0).sentence == "b c"


def named(query_id, sentence, video="v1"):
    return Query("here", query_id, video, sentence)


def test_a_query_reads_no_file_of_another_sentence(tmp_path):
    for place, name in enumerate(("q", "q@v1", "7")):
        np.savez(tmp_path / f"qid{name}.npz", last_hidden_state=np.full((2, 4), place))
    np.savez(tmp_path / "qidsaid.npz", last_hidden_state=np.ones((2, 4)), sentence=np.array("a dog"))
    queries = StreamedQueries(QueryFolder(tmp_path, 32, normalize=False))
    assert queries.problem(named("said", " a  dog")) is queries.problem(named("7", "a dog")) is None
    assert "holds the vectors of 'a dog', and the query is 'a cat'" in queries.problem(named("said", "a cat")).what
    assert queries.problem(named("7", "a dog", "v2")) is None
    assert "'a dog' in one place, 'a cat' in another" in queries.problem(named("7", "a cat", "v2")).what
    assert "no qid8.npz in" in queries.problem(named("8", "a dog")).what


def test_a_video_is_taken_from_an_id_only_where_every_video_is_asked(tmp_path):
    for place, name in enumerate(("q", "q@v1")):
        np.savez(tmp_path / f"qid{name}.npz", last_hidden_state=np.full((2, 4), place))
    record = named("q@v1", "a dog").record(1.0)
    for every_video in (False, True):
        queries = StreamedQueries(QueryFolder(tmp_path, 32, normalize=False), every_video)
        assert queries.batch([record])[0][0, 0, 0] == (not every_video)


@pytest.fixture
def broken(trained, tmp_path):
    """Good queries with one of each kind of broken ones between them."""
    good = rows(trained.queries)[:4]
    bad = [
        {**good[0], "qid": 101, "vid": "nowhere"},
        {**good[0], "qid": 102, "query": " "},
        {**good[0], "qid": 103, "duration": 0},
        {**good[0], "qid": 104, "duration": None},
        {**good[0], "qid": 105, "query": 7},
        '{"qid": 106, "vid"',
        {"qid": 107, "query": "no video at all"},
    ]
    lines = [row if isinstance(row, str) else json.dumps(row) for row in (*good[:2], *bad, *good[2:])]
    (tmp_path / "broken.jsonl").write_text("\n".join(lines))
    return tmp_path / "broken.jsonl"


WHY = (
    "no features of video 'nowhere'",
    "no word in ' '",
    "duration must be a positive number of seconds, got 0",
    "the length of video .* is not known",
    "the query must be text, got 7",
    "not JSON",
    "names no video",
)


def test_broken_queries_are_all_told_of_before_anything_is_answered(trained, broken, tmp_path):
    with pytest.raises(DataError) as caught:
        trained.predict(tmp_path / "out", queries=broken)
    assert len(caught.value.problems) == len(WHY)
    for problem, why in zip(caught.value.problems, WHY, strict=True):
        assert re.search(why, problem.what)
        assert "--on-broken drop" in problem.fix
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_what_would_help_is_said_however_many_queries_lack_it(trained, tmp_path):
    """And a start that came to nothing leaves its folder free for the flag that helps."""
    sentences = tmp_path / "ask.txt"
    sentences.write_text("\n".join(row["query"] for row in rows(trained.queries)[:2]))
    flags = {"queries": sentences, "every_video": True, "output": tmp_path / "out"}
    with pytest.raises(DataError, match="give --durations FILE or --clip-seconds SECONDS; or leave such queries out"):
        trained.predict(**flags)
    assert trained.predict(**flags, clip_seconds=1.0)["answered"]


def test_broken_queries_are_left_out_and_listed(trained, broken, tmp_path):
    report = trained.predict(tmp_path / "out", queries=broken, on_broken="drop")
    assert (report["queries"], report["answered"], report["dropped"]) == (11, 4, 7)
    listed = rows(tmp_path / "out" / "dropped.jsonl")
    assert [line["qid"] for line in listed] == ["101", "102", "103", "104", "105", "7", "107"]
    assert [line["qid"] for line in rows(tmp_path / "out" / "predictions.jsonl")] == [0, 1, 2, 3]


def test_another_length_of_a_video_is_refused_wherever_the_work_was_divided(trained, tmp_path):
    first = rows(trained.queries)[0]
    lengths = [first["duration"], first["duration"] + 0.4, 100 * first["duration"]]
    asked = [{**first, "qid": number, "duration": seconds} for number, seconds in enumerate(lengths)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    flags = {"queries": tmp_path / "q.jsonl", "window": 1}
    with pytest.raises(DataError, match=r"q\.jsonl:3: video .* lasts .* s here, .* s in a query before"):
        trained.predict(tmp_path / "out", **flags)
    for shard in ("1/2", "0/2"):
        trained.predict(tmp_path / "parts", shard=shard, on_broken="drop", **flags)
    trained.predict(tmp_path / "whole", on_broken="drop", **flags)
    lines = [rows(tmp_path / name / "predictions.jsonl") for name in ("whole", "parts")]
    assert [[line["qid"] for line in each] for each in lines] == [[0, 1], [0, 1]]


def test_every_id_that_occurs_twice_is_told(trained, tmp_path):
    row = rows(trained.queries)[0]
    asked = [{"qid": name, "query": row["query"]} for name in ("a", "b", "a", "c", "b", "b")]
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    flags = {"queries": tmp_path / "twice.jsonl", "every_video": True, "clip_seconds": 1.0}
    with pytest.raises(DataError) as caught:
        trained.predict(tmp_path / "out", **flags)
    assert [problem.what for problem in caught.value.problems] == [
        "the query id 'a' occurs 2 times",
        "the query id 'b' occurs 3 times",
    ]


def test_features_that_cannot_be_read(trained, tmp_path):
    """Found only when their turn comes: what was answered before is kept, and dropping goes on from there."""
    asked = rows(trained.queries)
    features = tmp_path / "features"
    features.mkdir()
    for path in (trained.files.root / "features").iterdir():
        array = np.load(path)
        if path.stem == asked[-1]["vid"]:
            array[0, 0] = np.nan
        np.save(features / path.name, array)
    bad = [row["qid"] for row in asked if row["vid"] == asked[-1]["vid"]]
    asked = [row for row in asked if row["qid"] not in bad] + [row for row in asked if row["qid"] in bad]
    queries = tmp_path / "queries.jsonl"
    queries.write_text("".join(json.dumps(row) + "\n" for row in asked))
    flags = {"queries": queries, "features": (features,), "output": tmp_path / "out"}
    with pytest.raises(DataError, match="NaN in 1 of"):
        trained.predict(**flags)
    (part,) = (tmp_path / "out").glob("part-*.jsonl")
    assert part.stat().st_size
    report = trained.predict(**flags, on_broken="drop")
    assert report["dropped"] == len(bad) and report["answered"] == len(asked) - len(bad)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "an empty file"),
        ("a sentence alone\n", "cannot tell its format"),
        ('{"v": {"x": 1}}', "a list `sentences`"),
    ],
)
def test_what_is_no_query_file_is_said(text, why, tmp_path):
    (tmp_path / "q").write_text(text)
    with pytest.raises(DataError, match=why):
        open_queries(tmp_path / "q", 5)


@pytest.mark.parametrize("text", ['[\n{"vid": "v1", "query": "a dog"}\n]', "qid\tquery\n1\ta dog\n"])
def test_a_table_or_an_array_is_no_file_of_sentences(text, tmp_path):
    (tmp_path / "q").write_text(text)
    with pytest.raises(DataError, match="one sentence per line"):
        open_queries(tmp_path / "q", 5, sentences=True)


def test_the_command_says_what_it_did(trained, tmp_path, capsys):
    flags = ["--run", str(trained.run), "--queries", str(trained.queries), "--output", str(tmp_path / "out.jsonl")]
    assert cli.main(["predict", *flags, "--shard", "0/2"]) == 0
    assert "not done yet: shard 1/2 (0 of 1 windows)" in capsys.readouterr().out
    assert cli.main(["predict", "merge", "--output", str(tmp_path / "out.jsonl")]) == 1
    assert cli.main(["predict", *flags, "--shard", "1/2"]) == 0
    said = capsys.readouterr().out
    assert "queries answered" in said and "h of video searched per second per shard" in said
    assert cli.main(["predict", "merge", "--output", str(tmp_path / "out.jsonl")]) == 0
    assert cli.main(["predict", *flags, "--window", "0"]) == 2
    assert "--window must be at least 1" in capsys.readouterr().err


def test_an_id_that_occurs_twice_is_noted(trained, tmp_path, capsys):
    given = rows(trained.queries)
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*given, given[0]]))
    flags = ["--queries", str(tmp_path / "twice.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert cli.main(["predict", "--run", str(trained.run), *flags]) == 0
    assert f"note: the query id {given[0]['qid']} occurs twice" in capsys.readouterr().out


def test_of_two_names_of_a_video_the_one_of_the_annotations_is_taken(tmp_path):
    row = {
        "query_id": "q",
        "clip_id": "clip",
        "video_id": "film",
        "query": "a dog",
        "timestamps": [1, 2],
        "duration": 9,
    }
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    assert [asked.video for asked in read(tmp_path / "q.jsonl")] == ["clip"]
    assert read_annotations(tmp_path / "q.jsonl")[0].video_id == "clip"


def test_the_frames_of_a_video_tell_its_length(tmp_path):
    entry = {"fps": 29.4, "num_frames": 2940, "timestamps": [[294, 588]], "sentences": ["he cuts"]}
    (tmp_path / "tacos.json").write_text(json.dumps({"s1": entry}))
    assert [asked.duration for asked in read(tmp_path / "tacos.json")] == [pytest.approx(100.0)]
    assert read_annotations(tmp_path / "tacos.json")[0].duration == pytest.approx(100.0)
