"""`hero-plugin vocab build` and what it writes: links, moments, manifest, the same bytes, stopping and going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from hero_plugin.integrations.cli import main
from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.records import (
    REWORDED,
    Change,
    Record,
    Rewording,
    is_reworded,
    original_query,
    rewording_of,
)
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import checksum
from hero_plugin.integrations.tools.vocab import build, sources
from hero_plugin.integrations.tools.vocab.build import BuildJournal, ChoiceLimits, choose
from tests.tools.vocab.conftest import TEST


def manifest(world, name="ov.json"):
    return json.loads((world / f"{name}.manifest.json").read_text())


def test_rewordings_and_their_links(world, capsys):
    assert world.build() == 0
    records = read_annotations(world / "ov.json", on_outside="keep")
    sentences = {record.extra[REWORDED]["query"]: record.sentence for record in records}
    assert sentences["V2_0"] in ("somebody takes a phone", "a person takes a telephone")
    assert "V1_1" not in sentences  # "the person": no pronoun; "region" and "openings" are wrong
    vocabulary = set(tokenize((world / "train.txt").read_text()))
    originals = {record.query_id: record for record in read_annotations(world / "test.json", on_outside="keep")}
    for record in records:
        original = originals[original_query(record)]
        assert is_reworded(record) and (record.video_id, record.moments) == (original.video_id, original.moments)
        assert record.extra[REWORDED]["sentence"] == original.sentence != record.sentence
        assert set(tokenize(record.sentence)) - vocabulary == set(rewording_of(record).unseen) != set()
        assert rewording_of(record).changes[0].similarity > 0.6 and rewording_of(record).kind == "synonym"
    raw = json.loads((world / "ov.json").read_text())["V1"]
    assert "encoded_sentences" not in raw and raw["framestamps"][0] == [0, 80]
    assert raw["timestamps"][-1] == TEST["V1"]["timestamps"][-1]  # not cut at the video's end
    assert "rewordings of" in capsys.readouterr().out


def test_the_manifest_says_how_it_came_about(world):
    assert world.build("--seed", "7") == 0
    facts = manifest(world)
    assert facts["seed"] == 7 and facts["source"]["kind"] == "lexicon" and facts["input"]["format"] == "charades-cd"
    assert facts["output"]["sha256"] == checksum(world / "ov.json")
    assert facts["input"]["sha256"] == checksum(world / "test.json")
    assert facts["proposed"] == facts["passed"] + sum(
        count for name, count in facts["turned_down"].items() if name not in ("per word", "duplicate")
    )
    assert (
        facts["rewordings"] == facts["reworded_queries"] == len(read_annotations(world / "ov.json", on_outside="keep"))
    )
    assert {"agreement", "protected", "similarity"} <= set(facts["turned_down"])
    assert not list(world.folder.glob("*.journal"))


def test_same_inputs_same_bytes(world):
    assert world.build() == 0 and world.build(output="again.json") == 0
    assert (world / "ov.json").read_bytes() == (world / "again.json").read_bytes()
    first, second = manifest(world), manifest(world, "again.json")
    assert first.pop("output")["sha256"] == second.pop("output")["sha256"] and first == second


@pytest.mark.parametrize("target", ["captions", "qvhighlights", "charades-cd"])
def test_the_link_survives_formats(world, target):
    assert world.build("--to", target) == 0
    before = {
        r.extra[REWORDED]["id"]: r.extra[REWORDED] for r in read_annotations(world / "ov.json", on_outside="keep")
    }
    for other in ("qvhighlights", "activitynet"):
        out = world / f"as-{other}"
        files = ("--input", world / "ov.json", "--output", out, "--to", other, "--on-outside", "keep")
        assert main(["data", "convert", *map(str, files)]) == 0
        links = [record.extra[REWORDED] for record in read_annotations(out, on_outside="keep")]
        assert {link["id"]: link for link in links} == before


def test_charades_sta_in_and_out(world):
    lines = [
        f"{video} {s} {e}##{q}."
        for video, entry in TEST.items()
        for (s, e), q in zip(entry["timestamps"], entry["sentences"], strict=True)
    ]
    (world / "test.txt").write_text("\n".join(lines) + "\n")
    durations = ("--durations", world / "test.json")
    assert world.build(*durations, input="test.txt") == 0
    assert all(map(is_reworded, read_annotations(world / "ov.json")))  # in a format with a place for links
    assert world.build(*durations, "--to", "charades-sta", input="test.txt", output="ov.txt") == 0
    assert len(read_annotations(world / "ov.txt", durations=world / "test.json")) == manifest(world)["rewordings"]


def test_two_changes_at_once(world):
    assert world.build("--max-changes", "2", "--per-query", "5") == 0
    sentences = {record.sentence: record for record in read_annotations(world / "ov.json", on_outside="keep")}
    assert "somebody takes a telephone" in sentences
    assert manifest(world)["by_unseen_words"]["2"] >= 1
    assert [r.extra[REWORDED]["id"] for r in sentences.values() if r.video_id == "V2"] == ["V2_0~1", "V2_0~2", "V2_0~3"]


def test_mistakes_are_told(world, capsys):
    def complaint(*more, **names):
        assert world.build(*more, **names) == 2
        return capsys.readouterr().err

    for read in ("test.json", "train.txt", "words.npz", "lexicon.json"):
        assert "never the input" in complaint("--overwrite", output=read)
    assert "--paraphrases" in complaint("--source", "paraphrases")
    assert "is not a lexicon" in complaint("--lexicon", world / "test.json")
    assert "no rewording passed" in complaint("--frequency", "9")
    assert "delete it" in complaint()  # what the last one left
    (world / "ov.json.journal").unlink()
    assert world.build() == 0
    assert "add --overwrite" in complaint()


def test_a_format_that_is_none_is_told_before_anything_is_read(world, capsys):
    with pytest.raises(SystemExit) as left:
        world.build("--to", "foo", input="nowhere.json")
    assert left.value.code == 2 and "foo" in capsys.readouterr().err


def test_paraphrases(world):
    (world / "p.jsonl").write_text(
        '{"query": "V2_0", "sentence": "a person takes a telephone"}\n'
        '{"original": "the person opens a door", "sentence": "somebody folds a telephone"}\n'
        "person folds the clothes\tperson folds the apparel\n"
    )
    assert world.build("--source", "paraphrases", "--paraphrases", world / "p.jsonl") == 0
    records = read_annotations(world / "ov.json", on_outside="keep")
    assert {record.sentence for record in records} == {"a person takes a telephone", "person folds the apparel"}
    assert manifest(world)["turned_down"]["similarity"] == 1  # another meaning
    change = rewording_of(records[0]).changes[0]
    assert (change.old, change.new, change.kind) == ("clothes", "apparel", "paraphrase")
    (world / "p.jsonl").write_text("nothing of the sort\n")
    assert world.build("--source", "paraphrases", "--paraphrases", world / "p.jsonl", output="b.json") == 2


def test_no_rewording_says_what_another_moment_says(world):
    test = json.loads(json.dumps(TEST))
    test["V2"]["sentences"] = ["a person takes a phone", "a person takes a telephone"]
    test["V2"]["timestamps"] = [[0.0, 1.0], [2.0, 3.0]]
    test["V2"].pop("framestamps"), test["V2"].pop("encoded_sentences")
    (world / "test.json").write_text(json.dumps(test))
    assert world.build("--per-query", "3") == 0
    facts = manifest(world)
    assert facts["turned_down"]["collision"] >= 1
    made = [r.sentence for r in read_annotations(world / "ov.json", on_outside="keep") if r.video_id == "V2"]
    assert "a person takes a telephone" not in made


def rewording(word):
    return Rewording(f"a {word}", (Change("thing", word, "synonym"),), (word,))


def test_what_is_chosen():
    records = [Record(str(i), f"v{i}", "a thing", ((0, 1),), 2) for i in range(40)]
    passed = [[rewording("widget"), rewording("gadget")] for _ in records]
    chosen, left_out = choose(records, passed, ChoiceLimits(per_query=1, per_word=15), seed=1)
    uses = Counter(each.unseen[0] for some in chosen for each in some)
    assert uses == {"widget": 15, "gadget": 15} and left_out["per word"] == 20
    assert choose(records, passed, ChoiceLimits(per_query=1, per_word=15), seed=1)[0] == chosen
    assert choose(records, passed, ChoiceLimits(per_query=1, per_word=15), seed=2)[0] != chosen
    everything, _ = choose(records, passed, ChoiceLimits(per_query=2, per_word=0), seed=1)
    assert all(len(some) == 2 for some in everything)
    same_video = [record.replace(video_id="v") for record in records]
    chosen, left_out = choose(same_video, passed, ChoiceLimits(per_query=2, per_word=0), seed=1)
    assert sum(map(len, chosen)) == 2 and left_out["duplicate"] == 78


def test_journal_goes_on_after_a_torn_line(tmp_path):
    path = tmp_path / "j"
    journal = BuildJournal(path, "mark", resume=False)
    journal.add([rewording("widget")], Counter(proposed=1))
    journal.close()
    with open(path, "a") as stream:
        stream.write('{"passed": [{"sent')
    with pytest.raises(UserError, match="--resume"):
        BuildJournal(path, "mark", resume=False)
    with pytest.raises(UserError, match="other files or settings"):
        BuildJournal(path, "another", resume=True)
    journal = BuildJournal(path, "mark", resume=True)
    assert len(journal.rows) == 1
    journal.add([], Counter(unseen=2))
    assert [(len(passed), dict(counts)) for passed, counts in journal.rows] == [
        (1, {"proposed": 1}),
        (0, {"unseen": 2}),
    ]
    journal.close(remove=True)
    assert not path.exists()


def test_answers_of_another_seed_or_command_are_not_gone_on_with(world, monkeypatch, capsys):
    script = "import json; print(json.dumps({'choices': [{'message': {'content': 'a person takes a telephone'}}]}))"
    (world / "model.py").write_text(script)
    command = f"{sys.executable} {world / 'model.py'}"
    chat = ("--source", "chat", "--chat.command")
    with monkeypatch.context() as patched:
        patched.setattr(build, "Interrupts", lambda: nullcontext(SimpleNamespace(requested=True)))
        assert world.build(*chat, command) == 130
    for more in ((*chat, command, "--seed", "1"), (*chat, f"{command} again")):
        assert world.build(*more, "--resume") == 2
        assert "other files or settings" in capsys.readouterr().err
    assert world.build(*chat, command, "--resume") == 0


def test_only_a_language_model_is_asked_in_threads(world, monkeypatch):
    """WordNet's reader seeks in open files: in two threads it reads other senses than those asked for."""
    usual, seen = sources.WordSwaps.propose, set()

    def propose(self, query):
        seen.add(threading.current_thread())
        yield from usual(self, query)

    monkeypatch.setattr(sources.WordSwaps, "propose", propose)
    script = "import json; print(json.dumps({'choices': [{'message': {'content': 'a person takes a telephone'}}]}))"
    (world / "model.py").write_text(script)
    command = ("--chat.command", f"{sys.executable} {world / 'model.py'}", "--chat.jobs", "3")
    assert world.build("--source", "lexicon", "chat", *command) == 0
    assert seen == {threading.main_thread()}
    named = {record.extra[REWORDED]["source"] for record in read_annotations(world / "ov.json", on_outside="keep")}
    assert named <= {"swaps from lexicon.json", "chat"}


SLOW = """
import sys, time
from hero_plugin.integrations.tools.vocab import sources
propose = sources.WordSwaps.propose
def slow(self, query):
    time.sleep(0.02)
    yield from propose(self, query)
sources.WordSwaps.propose = slow
from hero_plugin.integrations.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_and_resume_give_the_same_bytes(world):
    test = {f"V{i}": TEST["V2"] for i in range(150)}
    (world / "test.json").write_text(json.dumps(test))
    assert world.build() == 0
    files = (
        "--input test.json --train train.txt --words words.npz --lexicon lexicon.json --no-use-wordnet --output b.json"
    )
    command = [sys.executable, "-c", SLOW, "vocab", "build", *files.split()]
    process = subprocess.Popen(command, cwd=world.folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    journal = world / "b.json.journal"
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in err and "Traceback" not in err
    assert not (world / "b.json").exists() and 1 < len(journal.read_text().splitlines()) < 151
    assert world.build("--resume", output="b.json") == 0
    assert (world / "b.json").read_bytes() == (world / "ov.json").read_bytes()
    assert manifest(world, "b.json")["turned_down"] == manifest(world)["turned_down"]


@pytest.mark.parametrize(
    "flags", [("--word-share", "4"), ("--per-query", "0"), ("--per-query", "-1"), ("--max-changes", "0")]
)
def test_limits_that_limit_nothing_are_refused(world, flags, capsys):
    assert world.build(*flags) == 2
    said = capsys.readouterr().err
    assert "a share of the file, between 0 and 1" in " ".join(said.split())
    assert not (world / "ov.json").exists() and not list(world.folder.glob("*.journal"))


def test_counts_add_up_and_what_was_left_out_is_said(world, capsys):
    test = json.loads((world / "test.json").read_text())
    test["V1"]["timestamps"][0] = [9.0, 3.0]
    (world / "test.json").write_text(json.dumps(test))
    assert world.build("--max-changes", "2") == 0
    said, facts = capsys.readouterr().out, manifest(world)
    assert "left out 1 queries that cannot be used; first" in said and facts["queries_left_out"] == 1
    filtered = sum(count for name, count in facts["turned_down"].items() if name not in ("per word", "duplicate"))
    assert facts["proposed"] == facts["passed"] - facts["combined"] + filtered and facts["combined"] > 0
    assert f"{facts['proposed']:,} proposed, {facts['passed'] - facts['combined']:,} passed the filters" in said
