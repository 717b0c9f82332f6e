"""Reading, writing and reading again gives the same records: on made-up, on invented and on the real files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from hero_plugin.integrations.data.annotations import detect_format, read_annotations, write_annotations
from hero_plugin.integrations.data.checks import ReadReport
from hero_plugin.integrations.data.records import Change, Record, Rewording, is_reworded, reworded_record
from hero_plugin.integrations.support.errors import DataError
from tests.data import samples
from tests.resources import shared, upstream

SAMPLES = {
    "charades-sta": ("a.txt", samples.STA),
    "charades-cd": ("a.json", samples.CHARADES_CD),
    "captions": ("a.json", samples.CAPTIONS),
    "qvhighlights": ("a.jsonl", samples.QVHIGHLIGHTS),
}


def again(records: list[Record], format: str) -> list[Record]:
    """Write records and read them back, the format detected from the content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations"
        write_annotations(records, path, format=format)
        assert detect_format(path) == format
        durations = {record.video_id: record.duration for record in records}
        found = read_annotations(path, durations=durations)
        assert [p.name for p in Path(folder).iterdir()] == ["annotations"]
    return found


@pytest.mark.parametrize("format", SAMPLES)
def test_samples(tmp_path, format):
    path = samples.write(tmp_path, *SAMPLES[format])
    assert detect_format(path) == format
    records = read_annotations(path, durations=samples.DURATIONS)
    assert again(records, format) == records


def test_what_a_file_carries_comes_back_as_it_was(tmp_path):
    for name, data in (("cd", samples.CHARADES_CD), ("captions", samples.CAPTIONS), ("cg", samples.CHARADES_CG)):
        path = samples.write(tmp_path, f"{name}.json", data)
        target = "charades-cd" if name == "cd" else "captions"
        write_annotations(read_annotations(path), tmp_path / "out.json", format=target)
        assert json.loads((tmp_path / "out.json").read_text()) == data
    path = samples.write(tmp_path, "a.jsonl", samples.QVHIGHLIGHTS)
    write_annotations(read_annotations(path), tmp_path / "out.jsonl", format="qvhighlights")
    assert (tmp_path / "out.jsonl").read_text() == path.read_text()


TACOS = {
    "s1-d1.avi": {
        "timestamps": [[40, 90], [0, 30]],
        "sentences": ["He cuts.", "He washes."],
        "fps": 10.0,
        "num_frames": 400,
    }
}


def test_tacos_counts_in_frames(tmp_path):
    """As EMB's authors and 2D-TAN's ship it: no duration, and moments in frames."""
    records = read_annotations(samples.write(tmp_path, "tacos.json", TACOS))
    assert [record.moments for record in records] == [((4.0, 9.0),), ((0.0, 3.0),)]
    assert {record.duration for record in records} == {40.0}
    given = read_annotations(tmp_path / "tacos.json", durations={"s1-d1.avi": 50.0})
    assert given == records  # the file knows better
    for format in ("captions", "qvhighlights", "charades-cd"):
        moments = [record.moments for record in again(records, format)]
        assert moments == [((4.0, 9.0),), ((0.0, 3.0),)]


def test_moments_in_seconds_stay_where_a_file_has_both(tmp_path):
    entry = {"timestamps": [[4, 9]], "sentences": ["He cuts."], "fps": 10.0, "num_frames": 400, "duration": 40.0}
    (record,) = read_annotations(samples.write(tmp_path, "both.json", {"a": entry}))
    assert record.moments == ((4.0, 9.0),) and record.extra["video"] == {"fps": 10.0, "num_frames": 400}


def test_tacos_as_its_authors_ship_it():
    file = upstream("EMB") / "data" / "dataset" / "tacos" / "test.json"
    raw = json.loads(file.read_text())
    records = read_annotations(file, on_broken="drop")
    assert len(records) > 0.99 * sum(len(entry["sentences"]) for entry in raw.values())
    entry = raw[records[0].video_id]
    assert records[0].duration == entry["num_frames"] / entry["fps"]
    assert max(record.moments[0][1] / record.duration for record in records) <= 1.0


@pytest.mark.parametrize("rows", ["objects", "lists"])
def test_one_json_array(tmp_path, rows):
    objects = [
        {"qid": 7, "vid": "a", "duration": 20, "query": "A door opens.", "relevant_windows": [[1, 5]]},
        {"qid": 8, "vid": "b", "duration": 30, "query": "It shuts.", "relevant_windows": [[2, 4]]},
    ]
    lists = [[row["vid"], row["duration"], row["relevant_windows"][0], row["query"]] for row in objects]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(objects if rows == "objects" else lists, indent=1))
    assert detect_format(path) == "json-array"
    records = read_annotations(path)
    assert [record.query_id for record in records] == (["7", "8"] if rows == "objects" else ["0", "1"])
    assert [(r.video_id, r.duration, r.moments, r.sentence) for r in records] == [
        ("a", 20.0, ((1.0, 5.0),), "A door opens."),
        ("b", 30.0, ((2.0, 4.0),), "It shuts."),
    ]
    with pytest.raises(ValueError, match="json-array is read and not written"):
        write_annotations(records, tmp_path / "out.json", format="json-array")


def test_highlights_without_windows_are_told_once(tmp_path):
    """TVSum and YouTube Highlights, as lighthouse lays them out."""
    row = {"query": "a dog show", "vid": "a", "duration": 6, "domain": "DS", "label": [[1, 2], [3, 4], [0, 0]]}
    path = samples.write(tmp_path, "tvsum.jsonl", [{**row, "qid": qid} for qid in range(3)])
    with pytest.raises(DataError, match="top-5 mAP is not computed") as error:
        read_annotations(path, on_broken="drop")
    assert len(error.value.problems) == 1


def test_ids_stay_the_numbers_or_the_text_that_they_are(tmp_path):
    ids = [-5, "-6", 7, "8", "-0"]
    rows = [{"qid": each, "vid": "a", "duration": 20, "query": "x", "relevant_windows": [[2, 6]]} for each in ids]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_annotations(read_annotations(path), tmp_path / "b.jsonl", format="qvhighlights")
    assert [json.loads(line)["qid"] for line in (tmp_path / "b.jsonl").read_text().splitlines()] == ids


def test_a_window_that_cannot_be_used_is_left_out_of_a_query_that_keeps_others(tmp_path):
    windows = [[2, 6], [8, 8], [40, 44]]
    rows = [
        {"qid": i, "vid": "a", "duration": 20, "query": "x", "relevant_windows": w}
        for i, w in enumerate([windows, [[8, 8]]])
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as error:
        read_annotations(path)
    assert len(error.value.problems) == 3
    report = ReadReport()
    (record,) = read_annotations(path, on_broken="drop", report=report)
    assert record.query_id == "0" and record.moments == ((2.0, 6.0),)
    assert len(report.lost_windows) == 2 and len(report.dropped) == 1
    with pytest.warns(UserWarning) as told:
        read_annotations(path, on_broken="drop")
    assert ["left out 1 broken queries" in str(told[0].message), "left out 2 windows" in str(told[1].message)] == [
        True
    ] * 2


def test_fields_of_the_formats(tmp_path):
    (first, _) = read_annotations(samples.write(tmp_path, "a.txt", samples.STA), durations=samples.DURATIONS)
    assert first == Record("3MSZA_0", "3MSZA", "person turn a light on.", ((24.3, 30.4),), 30.96)
    (record,) = read_annotations(samples.write(tmp_path, "b.json", samples.CHARADES_CD), split="train")
    assert (record.moments, record.duration, record.split) == (((17.7, 23.4),), 23.5625, "train")
    assert record.extra["encoded_sentences"] == [1, 38, 3, 18, 23]
    (record,) = read_annotations(samples.write(tmp_path, "c.json", samples.CHARADES_CG))
    assert record.extra["novels"] == {"v-adv": [["put", "on"]]}
    labelled, bare = read_annotations(samples.write(tmp_path, "d.jsonl", samples.QVHIGHLIGHTS))
    assert labelled.moments == ((10.0, 14.0), (18.0, 20.0))
    assert labelled.saliency[1] == (6, (4.0, 3.0, 2.0))
    assert (bare.query_id, bare.moments, bare.saliency) == ("12", (), ())
    second = read_annotations(samples.write(tmp_path, "e.json", samples.CAPTIONS))[1]
    assert (second.sentence, second.query_id) == ("Two things.", "v_a_1")


@pytest.mark.parametrize("format", ["captions", "charades-cd", "qvhighlights"])
@pytest.mark.parametrize("first", ["original", "rewording"])
def test_a_rewording_beside_an_original_of_its_video_keeps_its_link(format, first):
    original = Record("v_0", "v", "person opens box", ((0.0, 1.0),), 10.0)
    wording = Rewording("human opens crate", (Change("box", "crate", "synonym"),), ("crate",))
    records = [original, reworded_record(original, wording, 1, "wordnet")]
    records = records if first == "original" else records[::-1]
    found = again(records, format)
    assert [is_reworded(record) for record in found] == [is_reworded(record) for record in records]
    assert [record.extra.get("reworded") for record in found] == [record.extra.get("reworded") for record in records]


def test_a_changed_sentence_wins_over_the_one_kept_from_the_file(tmp_path):
    record = read_annotations(samples.write(tmp_path, "e.json", samples.CAPTIONS))[1]
    write_annotations([record.replace(sentence="New.")], tmp_path / "out.json", format="captions")
    assert json.loads((tmp_path / "out.json").read_text())["v_a"]["sentences"] == ["New."]


def test_frame_numbers_follow_a_moment_that_was_changed(tmp_path):
    (record,) = read_annotations(samples.write(tmp_path, "b.json", samples.CHARADES_CD))
    write_annotations([record.replace(moments=((1.0, 2.0),))], tmp_path / "out.json", format="charades-cd")
    assert json.loads((tmp_path / "out.json").read_text())["QM4AD"]["framestamps"] == [[16, 32]]


@settings(max_examples=25, deadline=None)
@given(samples.record_lists())
def test_every_format_of_one_moment_gives_back_what_it_was_given(records):
    for format in ("charades-sta", "charades-cd", "captions"):
        found = again(records, format)
        assert [r.replace(extra={}) for r in found] == records


@settings(max_examples=25, deadline=None)
@given(samples.record_lists(windows=3, ids=True))
def test_qvhighlights_gives_back_what_it_was_given(records):
    assert again(records, "qvhighlights") == records


REAL = [
    *(f"charades_cd/charades_{split}.json" for split in ("train", "val", "test_ood")),
    *(f"charades_cg/{split}.json" for split in ("train", "test_trivial", "novel_composition")),
    *(f"activitynet_cd/anet_{split}.json" for split in ("val", "test_iid", "test_ood")),
    "qvhighlights/highlight_val_release.jsonl",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_files(tmp_path, name):
    path, report = shared(*name.split("/")), ReadReport()
    records = read_annotations(path, on_outside="keep", on_broken="drop", report=report)
    out = tmp_path / "out"
    write_annotations(records, out, format=report.format)
    assert [r.replace(query_id="") for r in read_annotations(out, on_outside="keep")] == [
        r.replace(query_id="") for r in records
    ]
    if not report.dropped:  # then the file itself comes back, value for value
        assert _parsed(out) == _parsed(path)


def _parsed(path: Path):
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_charades_sta_comes_back_byte_for_byte(tmp_path, split):
    path = shared("charades", f"charades_sta_{split}.txt")
    records = read_annotations(path, durations=shared("charades", "action_timelines.json"), on_outside="keep")
    write_annotations(records, tmp_path / "out.txt", format="charades-sta")
    assert (tmp_path / "out.txt").read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_qvhighlights_come_back_byte_for_byte(tmp_path, split):
    path = shared("qvhighlights", f"highlight_{split}_release.jsonl")
    write_annotations(read_annotations(path), tmp_path / "out.jsonl", format="qvhighlights")
    assert (tmp_path / "out.jsonl").read_text() == path.read_text() + "\n"  # theirs lacks the last line end


@pytest.mark.upstream
def test_charades_sta_read_as_emb_and_as_lighthouse_have_it(tmp_path):
    """Clamped ends are what EMB computes and what lighthouse's own converted file says."""
    ours = read_annotations(
        shared("charades", "charades_sta_test.txt"), durations=shared("charades", "action_timelines.json")
    )
    theirs = read_annotations(upstream("lighthouse") / "data" / "charades" / "charades_test_release.jsonl")
    assert [(r.video_id, r.sentence, r.moments) for r in ours] == [(r.video_id, r.sentence, r.moments) for r in theirs]
