"""`hero-plugin vocab stats` from outside."""

from __future__ import annotations

import json

import pytest

from hero_plugin.integrations.data import Record
from hero_plugin.integrations.data.words import TOKENIZERS
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.vocab.stats import measure


def test_table_json_and_figure(plain_world, vocab, capsys):
    new = plain_world / "new.txt"
    new.write_text("X 1 2##a human grabs the crate.\nX 9 2##person opens the crate.\nX 3 4##person opens the door.\n")
    files = ("--train", plain_world / "train.txt", "--test", new, plain_world / "test.json")
    more = ("--json", plain_world / "s.json", "--figure", plain_world / "s.png", "--sensitivity")
    assert vocab("stats", *files, *more) == 0
    out = capsys.readouterr().out
    assert "33.33" in out and "crate" in out and "treebank" in out
    found = json.loads((plain_world / "s.json").read_text())
    new = found["tests"]["new"]
    assert new["queries"] == 3  # one of which ends before it starts: its words count
    assert new["seen_only"] == 1 and new["queries_by_unseen_words"] == {"0": 1, "1": 1, "3": 1}
    assert new["unseen_words"][0]["word"] == "crate" and new["unseen_words"][0]["queries"] == 2
    assert new["unseen_words"][0]["examples"][0] == "a human grabs the crate."
    assert new["unseen_by_query"]["X_0"] == ["human", "grabs", "crate"]
    assert found["training_words"] == 15 and found["tokenizer"] == "words"
    assert (plain_world / "s.png").read_bytes().startswith(b"\x89PNG")


def test_parts_of_speech(world, vocab, capsys):
    new = world / "new.txt"
    new.write_text("X 1 2##a human grabs the crate.\n")
    assert vocab("stats", "--train", world / "train.txt", "--test", new, "--json", world / "s.json") == 0
    words = {
        word["word"]: word["pos"] for word in json.loads((world / "s.json").read_text())["tests"]["new"]["unseen_words"]
    }
    assert words == {"human": "noun", "grabs": "verb", "crate": "noun"}


def test_without_a_tagger_parts_of_speech_are_left_out(plain_world, vocab, monkeypatch, capsys):
    monkeypatch.setattr("hero_plugin.integrations.tools.vocab.stats.find_tagger", lambda: None)
    files = ("--train", plain_world / "train.txt", "--test", plain_world / "test.json")
    assert vocab("stats", *files) == 0 and "no tagger at hand" in capsys.readouterr().out


def test_a_tokenizer_that_finds_no_word_is_told():
    """Such a query would count as one of seen words alone."""
    records = [Record("1", "v", "a zebra", (), 4.0), Record("2", "v", "\u0437\u0435\u0431\u0440\u0430", (), 4.0)]
    with pytest.raises(UserError, match=r"test: the tokenizer finds no word in 1 of 2 queries, such as"):
        measure(records[:1], {"test": records}, TOKENIZERS["letters"][0])


def test_mistakes_are_told(plain_world, vocab, capsys):
    test = ("--test", plain_world / "test.json")
    assert vocab("stats", "--train", plain_world / "none.txt", *test) == 2
    assert "no annotation file" in capsys.readouterr().err
    assert vocab("stats", "--train", plain_world / "train.txt", *test, "--tokenizer", "spacy") == 2
    assert "expected one of words" in capsys.readouterr().err
