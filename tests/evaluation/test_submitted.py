"""Robustness of submissions, through the command."""

from __future__ import annotations

import json

import pytest

from hero_plugin.integrations import cli
from hero_plugin.integrations.data.annotations import write_annotations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.evaluation.official import unseen_by

SENTENCES = ("person opens a door", "person opens a crate", "human opens a crate", "person opens a box")


@pytest.fixture
def files(tmp_path):
    """truth.jsonl, train.txt, and two submissions: right.jsonl always is, seen.jsonl only where all words are seen."""
    records = [Record(str(number), f"v{number}", SENTENCES[number % 4], ((10.0, 20.0),), 60.0) for number in range(24)]
    write_annotations(records, tmp_path / "truth.jsonl", format="qvhighlights")
    (tmp_path / "train.txt").write_text("A 0 5##person opens a door.\nA 6 9##person opens a box.\n")
    for name in ("right", "seen"):
        found = [[10, 20, 1.0] if name == "right" or number % 4 in (0, 3) else [40, 50, 1.0] for number in range(24)]
        lines = [{"qid": number, "pred_relevant_windows": [window]} for number, window in enumerate(found)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def evaluate(files, *flags: object) -> int:
    return cli.main(["eval", *map(str, flags), "--annotations", str(files / "truth.jsonl")])


def test_a_submission_is_scored_by_what_its_training_never_said(files, capsys):
    flags = ["--train", files / "train.txt", "--json", files / "out.json", "--figures", files / "drawn"]
    assert evaluate(files, "--submission", files / "seen.jsonl", files / "right.jsonl", *flags, "--resamples", 100) == 0
    assert "minus seen" in capsys.readouterr().out
    result = json.loads((files / "out.json").read_text())
    assert result["submissions"][str(files / "right.jsonl")]["brief"]["MR-full-mAP"] == 100
    parts = {part["group"]: part for part in result["drift"]["sets"]["submission"]["groups"]}
    assert {group: part["queries"] for group, part in parts.items()} == {"all": 24, "0": 12, "1": 6, "2+": 6}
    assert [parts[group]["models"]["seen"]["R1@0.5"]["value"] for group in ("all", "0", "1", "2+")] == [50, 100, 0, 0]
    assert parts["all"]["differences"]["right"]["mIoU"]["value"] == 50
    assert (files / "drawn" / "submission-drift.png").is_file()


def test_a_punctuation_mark_is_no_unseen_word(tmp_path):
    (tmp_path / "train.txt").write_text("A 0 5##person opens a door.\n")
    unseen = unseen_by([tmp_path / "train.txt"], "treebank")
    assert unseen(Record("1", "v", "person opens a door, a crate!", (), 10.0)) == ("crate",)


def test_one_submission_keeps_the_official_layout(files):
    flags = ["--submission", files / "seen.jsonl", "--json", files / "out.json"]
    assert evaluate(files, *flags) == 0
    plain = json.loads((files / "out.json").read_text())
    assert evaluate(files, *flags, "--train", files / "train.txt", "--resamples", 100) == 0
    assert {**plain, "drift": ...}.keys() == json.loads((files / "out.json").read_text()).keys()


def test_without_resamples_there_is_nothing_by_unseen_words(files, capsys):
    flags = ["--submission", files / "seen.jsonl", "--train", files / "train.txt", "--json", files / "out.json"]
    assert evaluate(files, *flags, "--resamples", 0) == 0
    assert "drift" not in json.loads((files / "out.json").read_text())
    assert evaluate(files, *flags, "--resamples", 0, "--figures", files / "drawn") == 2
    capsys.readouterr()
    assert evaluate(files, *flags, "--resamples", 10) == 2
    assert capsys.readouterr().out == ""  # reported before anything is scored


def test_two_submissions_stand_side_by_side_without_their_training(files, capsys):
    flags = ["--submission", files / "seen.jsonl", files / "right.jsonl", "--resamples", 100]
    assert evaluate(files, *flags, "--table", files / "t.tex", "--json", files / "out.json") == 0
    assert "right minus seen" in capsys.readouterr().out
    (part,) = json.loads((files / "out.json").read_text())["drift"]["sets"]["submission"]["groups"]
    assert part["differences"]["right"]["R1@0.7"]["value"] == 50
    assert r"right minus seen & $+50.0$" in (files / "t.tex").read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["right.jsonl", "./right.jsonl"], "right.jsonl; give each submission once"),
        (["right.jsonl", "--table", "t.doc"], "one of .md, .csv, .tex, .json"),
        (["right.jsonl", "--table", "t.tex", "--resamples", "0"], "--table shows intervals"),
        (["right.jsonl", "--figures", "drawn"], "add --train"),
        (["right.jsonl", "seen.jsonl", "--train", "train.txt", "--figure", "f.png"], "--figure draws one submission"),
        (["right.jsonl", "--train", "train.txt", "--tokenizer", "no"], "no tokenizer 'no'"),
        (["right.jsonl", "--json", "."], "--json .: is a folder; name a file"),
        (["right.jsonl", "--figure", "."], "--figure .: is a folder; name a file"),
        (["right.jsonl", "--train", "train.txt", "--figures", "train.txt"], "is a file; name a folder"),
    ],
)
def test_flags_that_do_not_go_together_are_said(files, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(files)
    assert evaluate(files, "--submission", *flags) == 2
    assert said in capsys.readouterr().err
