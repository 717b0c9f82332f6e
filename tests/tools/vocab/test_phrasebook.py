"""The phrasebook: well-formed entries, which hold only where they keep the meaning and come out in the right form."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.records import REWORDED, Change, Record, Rewording, rewording_of
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.build import ChoiceLimits, choose
from hero_plugin.integrations.tools.vocab.english import RuleTagger, inflected, make_query
from hero_plugin.integrations.tools.vocab.filters import AgreementFilter, first_reason
from hero_plugin.integrations.tools.vocab.phrasebook import PHRASEBOOK, SLOT, PhraseSwaps, read_phrasebook
from hero_plugin.integrations.tools.vocab.sources import combine

pytest.importorskip("lemminflect", reason='lemminflect is not installed: pip install "hero-plugin[vocab]"')
VERB_TAGS = ("VB", "VBZ", "VBG", "VBD", "VBN")


pytestmark = pytest.mark.usefixtures("packages")


@pytest.fixture(scope="module")
def book(packages):
    return PhraseSwaps(read_phrasebook())


def query(sentence):
    return make_query(Record("q", "v", sentence, ((0.0, 1.0),), 2.0), (), RuleTagger())


def proposed(book, sentence):
    found = query(sentence)
    return {each.sentence for each in book.propose(found) if first_reason([AgreementFilter(None)], found, each) is None}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("person turns on the light", "person switches on the light"),
        ("person turning the light off.", "person switching the light off."),
        ("they turned off the lights in the room", "they extinguished the lights in the room"),
        ("A person takes their shoes off.", "A person sheds their shoes."),
        ("a person takes off a pair of shoes", "a person sheds a pair of shoes"),
        ("person has taken off their jacket", "person has shed their jacket"),
        ("person takes a picture/video", "person shoots a picture/video"),
        ("they put on their shoes", "they don their shoes"),
        ("person putting their shoes on", "person donning their shoes"),
        ("person put the box on the table", "person deposited the box on the table"),
        ("they put the box on the table", "they deposit the box on the table"),
        ("he puts it down.", "he deposits it."),
        ("a person takes a cup out of the cabinet", "a person retrieves a cup from the cabinet"),
        ("person closes the door behind them", "person swings the door shut behind them"),
        ("person washing the window", "person wiping down the window"),
        ("person washes dishes", "person washes tableware"),
        ("person takes a drink from a glass", "person takes a swig from a glass"),
        ("A couch stands there", "A settee stands there"),
        ("a person holds two boxes", "a person holds two crates"),
        ("a person opens a box", "a human opens a box"),
        ("a person laughs", "somebody laughs"),
        ("person puts an item away", "person puts an article away"),
        ("a person walks to a small table", "a person walks to a tiny table"),
        ("person sits next to a bed", "person sits alongside a bed"),
        ("person begins eating", "person commences eating"),
        ("person is undressing in front of a mirror", "person is disrobing in front of a mirror"),
    ],
)
def test_expressions_are_swapped_in_the_form_they_have(book, sentence, expected):
    assert expected in proposed(book, sentence)


@pytest.mark.parametrize(
    ("sentence", "never"),
    [
        ("person takes a picture of the room", "fetches"),
        ("person takes a bite of a sandwich", "fetches"),
        ("person takes the shoes off", "retrieves"),
        ("person takes the shoes off the shelf", "sheds"),
        ("person puts the lamp on the table", "dons"),
        ("person is dressed", "clothes"),
        ("person changes a light bulb", "lamp"),
        ("person sits on a chair", "holds"),
        ("person turns the page", "switches"),
        ("those clothes are dirty", "attire"),
        ("a pair of shoes stands there", "footwear"),
        ("the other person laughs", "somebody"),
        ("person runs water into the sink", "dashes"),
        ("person opens a washing machine", "rinsing"),
        ("person closes up", "shuts"),
        ("he hits punching bags", "sacks"),
        ("some food is shown", "foodstuffs"),
        ("the boy waves and another boy laughs", "lad"),
    ],
)
def test_where_the_meaning_would_change_nothing_is_swapped(book, sentence, never):
    assert not [each for each in proposed(book, sentence) if never in each.split()]


@pytest.mark.parametrize("entry", read_phrasebook(), ids=lambda entry: " ".join(entry.old))
def test_every_entry_says_something_new_in_all_its_forms(entry):
    assert entry.new and entry.old not in entry.new and len(set(entry.new)) == len(entry.new)
    for words in (entry.old, *entry.new):
        assert all(word == SLOT or tokenize(word) == [word] for word in words)
        if entry.pos == "verb":
            assert all(inflected(words[0], tag) for tag in VERB_TAGS)
            assert inflected(words[0], "VBG")[0].endswith("ing")
        elif entry.pos == "noun":
            assert inflected(words[-1], "NNS")
    if any(SLOT in new and new[-1] != SLOT for new in entry.new):
        assert entry.object or SLOT in entry.old  # something must stand in the middle


def _plain(entry):
    """Verbs that ask for nothing but their object."""
    asks = (entry.next, entry.then, entry.then_object, entry.before, entry.with_, entry.forms, entry.next_tag)
    return entry.pos == "verb" and entry.object and SLOT not in entry.old and not any(asks)


PLAIN = [entry for entry in read_phrasebook() if _plain(entry)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_verb_keeps_its_form_and_its_object(data):
    entry = data.draw(st.sampled_from(PLAIN))
    thing = data.draw(st.sampled_from(sorted(entry.object - entry.object_not)))
    start, tag = data.draw(st.sampled_from([("a person", "VBZ"), ("a person is", "VBG"), ("they", "VB")]))
    verb, *rest = entry.old
    sentence = " ".join((start, inflected(verb, tag)[0], *rest, "the", thing))
    for swap in PhraseSwaps([entry]).propose(query(sentence)):
        words = swap.sentence.split()
        place = len(start.split())
        assert words[:place] == start.split() and "the" in words and thing in words
        assert words[place] in {form for new in entry.new for form in inflected(new[0], tag)}
        assert swap.sentence != sentence and "  " not in swap.sentence and swap.changes[0].part == "action"
        assert swap.changes[0].kind == (
            "synonym" if len(entry.old) == 1 == len(swap.changes[0].new.split()) else "phrase"
        )


def test_two_at_once_touch_different_words(book):
    found = query("A person takes their shoes off on the couch.")
    swaps = list(book.propose(found))
    doubles = [each.sentence for each in combine(found, swaps, 2)]
    assert len(doubles) == len(set(doubles)) == 24 and doubles == [each.sentence for each in combine(found, swaps, 2)]
    for each in combine(found, swaps, 2):
        assert len(each.changes) == 2 and each.sentence.startswith(("A ", "Somebody ")) and each.sentence.endswith(".")


def test_all_of_it_together(world):
    more = ("--source", "phrasebook", "lexicon", "--max-changes", "2")
    assert world.build(*more) == 0 and world.build(*more, output="again.json") == 0
    assert (world / "ov.json").read_bytes() == (world / "again.json").read_bytes()
    records = read_annotations(world / "ov.json", on_outside="keep")
    numbers = Counter((r.extra[REWORDED]["query"], len(rewording_of(r).changes)) for r in records)
    assert set(numbers.values()) == {1} and {number for _, number in numbers} == {1, 2}
    assert {part for r in records for part in [rewording_of(r).part]} <= {"person", "thing", "action", "mixed"}
    facts = json.loads((world / "ov.json.manifest.json").read_text())
    assert [each["kind"] for each in facts["source"]["sources"]] == ["phrasebook", "lexicon"]
    assert {r.extra[REWORDED]["source"] for r in records} & {"phrasebook", "swaps from lexicon.json"}
    assert sum(facts["by_part"].values()) == len(records)


def test_words_without_vectors_are_turned_down(world):
    assert world.build("--source", "phrasebook") == 0
    made = read_annotations(world / "ov.json", on_outside="keep")
    new = {word for r in made for change in rewording_of(r).changes for word in tokenize(change.new)}
    assert new and new <= set(np.load(world / "words.npz")["words"].tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.floats(0.05, 1.0), st.integers(0, 3))
def test_no_word_has_more_than_its_share(words, share, seed):
    records = [Record(str(row), f"v{row}", "a thing", ((0.0, 1.0),), 2.0) for row in range(len(words))]
    passed = [[Rewording(f"a w{word}", (Change("thing", f"w{word}", "synonym"),), (f"w{word}",))] for word in words]
    chosen, _ = choose(records, passed, ChoiceLimits(per_word=0, word_share=share), seed)
    uses = Counter(each.unseen[0] for some in chosen for each in some)
    assert uses and max(uses.values()) <= max(3, share * uses.total())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "is not a phrasebook"),
        ('{"entries": [{"old": "box", "new": ["box"], "pos": "noun"}]}', "cannot replace itself"),
        ('{"entries": [{"old": "puts", "new": ["sets"], "pos": "verb"}]}', "not the base form"),
        ('{"entries": [{"old": "box", "new": ["crate"], "pos": "noun", "sometimes": true}]}', "unknown"),
        ('{"entries": [{"old": "box", "new": ["crate"], "pos": "adverb"}]}', "pos must be one of"),
        ('{"entries": [{"old": "box", "new": ["crate"], "pos": "noun", "next": "of"}]}', "a list of words"),
        ('{"entries": [{"old": "hold", "new": ["grip"], "pos": "verb", "object": ["@tools"]}]}', "tools"),
    ],
)
def test_mistakes_in_a_phrasebook_are_told(tmp_path, text, complaint):
    path = tmp_path / "book.json"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_phrasebook(path)


def test_the_package_has_its_phrasebook():
    assert PHRASEBOOK.is_file() and len(read_phrasebook()) > 300
