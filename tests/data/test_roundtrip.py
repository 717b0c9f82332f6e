"""Reading, writing and reading again gives the same records: on made-up, on invented and on the real files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from hero_plugin.integrations.data.annotations import detect_format, read_annotations, write_annotations
from hero_plugin.integrations.data.checks import ReadReport
from hero_plugin.integrations.data.records import Record
from tests.data import samples
from tests.resources import shared, upstream

SAMPLES = {
    "charades-sta": ("a.txt", samples.STA),
    "charades-cd": ("a.json", samples.CHARADES_CD),
    "captions": ("a.json", samples.CAPTIONS),
    "qvhighlights": ("a.jsonl", samples.QVHIGHLIGHTS),
}


def again(records: list[Record], format: str) -> list[Record]:
    """Write records and read them back, the format told by the content."""
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
