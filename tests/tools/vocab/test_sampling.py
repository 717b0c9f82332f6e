"""Samples to read, and the error rate that their labels give."""

from __future__ import annotations

import pytest

from hero_plugin.integrations.data.annotations import write_annotations
from hero_plugin.integrations.data.records import Change, Record, Rewording, reworded_record
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.review import draw_sample, read_labels


def built(number):
    return [
        reworded_record(
            Record(f"q{i}", "v", "a box", ((0, 1),), 2),
            Rewording("a crate", (Change("box", "crate", "synonym"),), ("crate",)),
            1,
            "test",
        )
        for i in range(number)
    ]


def test_a_sample_is_drawn_by_its_seed():
    records = built(50)
    ids = [record.query_id for record in draw_sample(records, 10, 1)]
    assert len(set(ids)) == 10 and ids == [record.query_id for record in draw_sample(records[::-1], 10, 1)]
    assert ids != [record.query_id for record in draw_sample(records, 10, 2)]
    assert len(draw_sample(records, 80, 1)) == 50
    with pytest.raises(UserError, match="vocab build"):
        draw_sample([Record("q", "v", "a box", ((0, 1),), 2)], 10, 1)


def test_labels_are_not_lost_to_another_sample(tmp_path, vocab, capsys):
    write_annotations(built(4), tmp_path / "ov.jsonl", format="qvhighlights")
    files = ("--input", tmp_path / "ov.jsonl", "--output", tmp_path / "s.tsv")
    assert vocab("sample", *files, "--number", 0) == 2 and "--number must be at least 1" in capsys.readouterr().err
    assert vocab("sample", *files, "--number", 2) == 0
    (tmp_path / "s.tsv").write_text("labelled")
    assert vocab("sample", *files) == 2 and "add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "s.tsv").read_text() == "labelled"
    assert vocab("sample", *files, "--overwrite") == 0 and len((tmp_path / "s.tsv").read_text().splitlines()) == 6


def test_a_table_that_is_not_utf8(tmp_path, vocab, capsys):
    (tmp_path / "s.tsv").write_bytes(b"ok\tcaf\xe9\n")
    assert vocab("rate", tmp_path / "s.tsv") == 2
    assert "s.tsv: not UTF-8 text" in capsys.readouterr().err


def test_rate(tmp_path, vocab, capsys):
    path = tmp_path / "s.tsv"
    write_annotations(built(4), tmp_path / "ov.jsonl", format="qvhighlights")
    assert vocab("sample", "--input", tmp_path / "ov.jsonl", "--output", path) == 0
    head, names, *rows = path.read_text().splitlines()
    assert rows[0].split("\t")[2:] == ["box -> crate", "a box", "a crate"]
    assert vocab("rate", path) == 2 and "must be one of ok, agreement" in capsys.readouterr().err
    labels = ("ok", "odd", "sense", "ok")
    path.write_text("\n".join([head, names, *(label + row for label, row in zip(labels, rows, strict=True))]) + "\n")
    assert read_labels(path) == {"ok": 2, "odd": 1, "sense": 1}
    assert vocab("rate", path) == 0
    assert "1 errors in 4: 25.0 %, 95 % interval 4.6 to 69.9" in capsys.readouterr().out
