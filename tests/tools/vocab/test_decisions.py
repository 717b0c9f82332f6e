"""What a reviewer decided becomes the file: accepted, rejected, edited and checked anew."""

from __future__ import annotations

import json

import pytest

from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.records import REWORDED
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.review import load_decisions
from tests.tools.vocab.conftest import run_vocab


@pytest.fixture
def world(world):
    assert world.build() == 0
    return world


def apply_decision_file(world, **verdicts):
    """Decisions by query, such as V2_0="reject" or V2_0="edited sentence"."""
    ids = {
        r.extra[REWORDED]["query"]: r.extra[REWORDED]["id"]
        for r in read_annotations(world / "ov.json", on_outside="keep")
    }
    rows = {
        ids[query]: {"verdict": what} if what in ("accept", "reject") else {"verdict": "edit", "sentence": what}
        for query, what in verdicts.items()
    }
    (world / "d.json").write_text(json.dumps({"file": "ov.json", "decisions": rows}))
    return world / "d.json"


def apply(world, *more, output="done.json"):
    files = ("--input", world / "ov.json", "--train", world / "train.txt", "--words", world / "words.npz")
    return run_vocab(
        "apply", *files, "--no-use-wordnet", "--decisions", world / "d.json", "--output", world / output, *more
    )


def sentences(world, name="done.json"):
    return {r.extra[REWORDED]["query"]: r.sentence for r in read_annotations(world / name, on_outside="keep")}


def counts(world, name="done.json"):
    return json.loads((world / f"{name}.manifest.json").read_text())["decisions"]


def test_apply(world):
    before = sentences(world, "ov.json")
    apply_decision_file(world, V1_0="reject", V1_2="person folds all the apparel", V2_0="accept")
    assert apply(world) == 0
    assert sentences(world) == {"V1_2": "person folds all the apparel", "V2_0": before["V2_0"]}
    assert (counts(world)["accepted"], counts(world)["rejected"], counts(world)["edited"]) == (1, 1, 1)
    edited = next(
        r for r in read_annotations(world / "done.json", on_outside="keep") if r.extra[REWORDED]["query"] == "V1_2"
    )
    link = edited.extra[REWORDED]
    assert link["kind"] == "paraphrase" and link["source"].endswith("edited") and "apparel" in link["unseen"]
    manifest = json.loads((world / "done.json.manifest.json").read_text())
    assert manifest["seed"] == 0 and manifest["rewordings"] == 2  # the rest of the story stays


def test_build_applies_them_too(world):
    apply_decision_file(world, V1_0="reject", V2_0="a person takes the telephone")
    assert world.build("--decisions", world / "d.json", output="again.json") == 0
    assert apply(world) == 0
    assert sentences(world, "again.json") == sentences(world)
    assert counts(world, "again.json") == counts(world) and counts(world)["undecided"] == 1


def test_edits_are_checked_by_the_filters(world, capsys):
    apply_decision_file(
        world,
        V1_0="person puts the phone on the sofa",
        V1_2="a person takes a telephone",
        V2_0="a person takes a phone",
    )
    assert apply(world, "--undecided", "drop") == 2  # nothing is left
    apply_decision_file(world, V1_2="a person takes a telephone")
    assert apply(world) == 0
    out = capsys.readouterr().out
    assert "edit turned down" in out and "another sentence" in out
    assert counts(world)["edits_turned_down"] == 1 and "V1_2" not in sentences(world)


def test_a_decision_on_another_sentence_is_not_applied(world, capsys):
    file = apply_decision_file(world, V2_0="accept")
    found = json.loads(file.read_text())
    (name,) = found["decisions"]
    for of, status in ((sentences(world, "ov.json")["V2_0"], 0), ("a person takes a crate", 2)):
        found["decisions"][name]["of"] = of
        file.write_text(json.dumps(found))
        assert apply(world, output=f"{status}.json") == status
    assert "is about 'a person takes a crate'" in capsys.readouterr().err


def test_edits_are_judged_by_the_training_queries_of_the_build(world, capsys):
    """Else a word could be new in an edit and known in its neighbour; the manifest would name the build's alone."""
    apply_decision_file(world, V2_0="a person takes the telephone")
    (world / "less.txt").write_text("A 0 5##person puts a phone on the sofa.\n")
    assert apply(world, "--train", world / "less.txt") == 2
    assert "built with other training queries" in capsys.readouterr().err and not (world / "done.json").exists()
    assert apply(world, "--tokenizer", "letters") == 2
    (world / "train.txt").rename(world / "renamed.txt")
    assert apply(world, "--train", world / "renamed.txt") == 0


def test_undecided(world):
    apply_decision_file(world, V2_0="accept")
    assert apply(world, "--undecided", "drop") == 0
    assert list(sentences(world)) == ["V2_0"]


def test_mistakes_are_told(world, capsys):
    (world / "d.json").write_text(json.dumps({"decisions": {"nobody~1": {"verdict": "accept"}}}))
    assert apply(world) == 2 and "not in this file" in capsys.readouterr().err
    for bad in ("[]", "{", '{"decisions": {"a": {"verdict": "maybe"}}}', '{"decisions": {"a": {"verdict": "edit"}}}'):
        (world / "d.json").write_text(bad)
        with pytest.raises(UserError, match="expected"):
            load_decisions(world / "d.json")
    apply_decision_file(world, V2_0="accept")
    assert apply(world, "--input", world / "test.json", output="o.json") == 2
    assert "no links" in capsys.readouterr().err


def test_the_manifest_says_where_edits_were_judged_by_other_vectors(world, capsys):
    apply_decision_file(world, V1_2="person folds all the apparel")
    assert apply(world) == 0 and "edits_judged_by" not in counts(world)
    (world / "words.npz").rename(world / "others.npz")
    capsys.readouterr()
    assert apply(world, "--overwrite", "--words", world / "others.npz") == 0
    assert counts(world)["edits_judged_by"]["word_vectors"]["file"] == "others.npz"
    assert "proposed" not in capsys.readouterr().out  # which are the build's counts
