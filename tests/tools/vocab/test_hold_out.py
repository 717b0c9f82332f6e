"""`hero-plugin vocab hold-out` from outside."""

from __future__ import annotations

import json

import pytest

from hero_plugin.integrations.data import read_sentences, tokenize
from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.tools.vocab.hold_out import family

pytest.importorskip("lemminflect")

SENTENCES = [
    *["a person closes the door"] * 3,
    *["somebody closing a box"] * 2,
    "the person closed it",
    *["a person holds a box"] * 4,
    *["she eats food", "a person laughs", "the person walks"] * 20,
]
SPOKEN = list(enumerate(SENTENCES))


@pytest.fixture
def training(tmp_path):
    records = [
        Record(query_id=f"v{place}_0", video_id=f"v{place}", sentence=sentence, duration=20.0, moments=((1.0, 5.0),))
        for place, sentence in enumerate(SENTENCES)
    ]
    write_annotations(records, tmp_path / "train.json", format="captions")
    (tmp_path / "test.txt").write_text("X 1 2##a person shuts the door.\nX 1 2##she is closing a gate.\n")
    return tmp_path


def test_a_word_goes_in_all_its_forms_and_the_other_queries_stay(training, vocab, capsys):
    asked = ("--input", training / "train.json", "--output", training / "less.json", "--test", training / "test.txt")
    assert vocab("hold-out", *asked, "--least", 5, "--most", 6, "--share", 0.1) == 0
    words = (training / "less.json.words.txt").read_text().split()
    assert words == ["closed", "closes", "closing"]  # said by 6; nobody asks for a box, and "she" is no noun
    kept, all_of_them = read_annotations(training / "less.json"), read_annotations(training / "train.json")
    expected = [each for each in all_of_them if not {"closes", "closing", "closed"} & set(tokenize(each.sentence))]
    assert [(each.video_id, each.sentence, each.moments) for each in kept] == [
        (each.video_id, each.sentence, each.moments) for each in expected
    ]
    out = capsys.readouterr().out
    assert "64 of 70 queries" in out and "3 words held out" in out
    assert "1 of 2 queries say one of them" in out


@pytest.mark.parametrize("seed", range(4))
def test_the_draw_keeps_to_the_share_and_the_seed_decides(training, vocab, seed):
    asked = ("--input", training / "train.json", "--share", 0.35, "--least", 4, "--most", 70, "--seed", seed)
    for name in ("one", "two"):
        assert vocab("hold-out", *asked, "--output", training / f"{name}.json") == 0
    one, two = (read_sentences(training / f"{name}.json") for name in ("one", "two"))
    assert [each.sentence for each in one] == [each.sentence for each in two]
    assert 0.65 * len(SENTENCES) <= len(one) < len(SENTENCES)
    held = set((training / "one.json.words.txt").read_text().split())
    assert held.isdisjoint(word for each in one for word in tokenize(each.sentence))


def test_mistakes_are_told_and_nothing_is_replaced(training, vocab, capsys):
    asked = ("--input", training / "train.json", "--output", training / "less.json")
    for more, said in (
        (("--share", 1.5), "--share must be between 0 and 1"),
        (("--least", 9, "--most", 3), "--least at least 1 and at most --most"),
        (("--share", 0.001), "no word is said by 5 to 150 training queries within a share of 0.001"),
    ):
        assert vocab("hold-out", *asked, *more) == 2
        assert said in capsys.readouterr().err
    (training / "less.json.words.txt").write_text("mine")
    assert vocab("hold-out", *asked) == 2
    assert "exists already" in capsys.readouterr().err and (training / "less.json.words.txt").read_text() == "mine"


def test_what_is_only_read_is_written_as_json_lines_and_text_needs_lengths(training, vocab, capsys):
    items = [[f"v{place}", 9.0, [1, 2], said] for place, said in SPOKEN]
    (training / "array.json").write_text(json.dumps(items))
    flags = ("--least", 5, "--most", 6, "--share", 0.1)
    assert vocab("hold-out", "--input", training / "array.json", "--output", training / "out.jsonl", *flags) == 0
    assert len(read_annotations(training / "out.jsonl")) == 64
    (training / "train.txt").write_text("".join(f"v{place} 1.0 5.0##{said}\n" for place, said in SPOKEN))
    asked = ("--input", training / "train.txt", "--output", training / "out.txt", *flags)
    assert vocab("hold-out", *asked) == 2
    assert "--durations" in capsys.readouterr().err
    (training / "lengths.json").write_text(json.dumps({f"v{place}": 9.0 for place, _ in SPOKEN}))
    assert vocab("hold-out", *asked, "--durations", training / "lengths.json") == 0
    assert len((training / "out.txt").read_text().splitlines()) == 64
    lengths = ("--durations", training / "lengths.json", "--output", training / "lengths.json", "--overwrite")
    assert vocab("hold-out", "--input", training / "train.txt", *lengths, *flags) == 2


@pytest.mark.parametrize("word", ["both", "her", "that", "can", "across"])
def test_words_that_tell_no_moment_stay(word):
    assert family(word) is None and family("boxes") == "box" == family("box's")
