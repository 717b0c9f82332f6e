"""Category sets, the open-vocabulary test and drift, by example, by property and on the published files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.integrations.data.annotations import read_sentences
from hero_plugin.integrations.data.words import TOKENIZERS, open_tokenizer, tokenize, word_spans
from hero_plugin.integrations.scoring.open_vocabulary import (
    measure_drift,
    training_vocabulary,
    unseen_words,
)
from hero_plugin.integrations.support.errors import UserError
from tests.resources import shared

queries = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=5), min_size=1, max_size=8)


def test_drift_by_example():
    vocabulary = training_vocabulary([["a", "door", "opens"], ["a", "box"]])
    drift = measure_drift([["a", "crate", "opens", "a", "crate"], ["a", "box"], ["human", "crate"]], vocabulary)
    assert (drift.queries, drift.words, drift.tokens, drift.seen_only) == (3, 5, 9, 1)
    assert drift.seen_share == pytest.approx(100 / 3)
    assert drift.by_number() == {0: 1, 1: 1, 2: 1}
    assert drift.unseen == (("crate",), (), ("human", "crate"))
    first = drift.ranking[0]
    assert (first.word, first.count, first.queries, first.examples) == ("crate", 3, 2, (0, 2))
    assert drift.unseen_tokens == 4
    with pytest.raises(ValueError, match="no test queries"):
        measure_drift([], vocabulary)


@given(queries, queries)
def test_drift_agrees_with_the_definition(train, test):
    vocabulary = training_vocabulary(train)
    drift = measure_drift(test, vocabulary)
    for query, unseen in zip(test, drift.unseen, strict=True):
        assert set(unseen) == set(query) - vocabulary
        assert unseen_words(query, vocabulary) == unseen
    assert drift.seen_only == sum(set(query) <= vocabulary for query in test)
    assert sum(drift.by_number().values()) == len(test)
    assert sum(word.queries for word in drift.ranking) == sum(map(len, drift.unseen))


@given(queries)
def test_training_queries_have_no_drift(train):
    assert measure_drift(train, training_vocabulary(train)).seen_share == 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "test", "seen", "queries"),
    [
        ("charades_cd/charades_train.json", "charades_cd/charades_test_ood.json", 3242, 3375),
        ("charades_cd/charades_train.json", "charades_cd/charades_test_iid.json", 792, 823),
        ("activitynet_cd/anet_train.json", "activitynet_cd/anet_test_ood.json", 11948, 13578),
    ],
)
def test_published_files(train, test, seen, queries):
    vocabulary = training_vocabulary(tokenize(record.sentence) for record in read_sentences(shared(train)))
    drift = measure_drift([tokenize(record.sentence) for record in read_sentences(shared(test))], vocabulary)
    assert (drift.seen_only, drift.queries) == (seen, queries)
    if "charades_test_ood" in test:
        assert f"{drift.seen_share:.2f}" == "96.06"  # the paper's figure


def test_tokenizers():
    assert open_tokenizer("words") is tokenize
    assert open_tokenizer("whitespace")("A door, opened.") == ["a", "door,", "opened."]
    assert open_tokenizer("stripped")("A door, opened.") == ["a", "door", "opened"]
    assert open_tokenizer("letters")("it's 2nd") == ["it", "s", "nd"]
    assert open_tokenizer("shlex:split")("a 'b c'") == ["a", "b c"]
    for name in ("nothing", "no_such_module:f", "shlex:nothing"):
        with pytest.raises(UserError, match="expected one of words, "):
            open_tokenizer(name)


@given(st.text("abC é'-.,İ5", max_size=30), st.sampled_from(sorted(TOKENIZERS)))
def test_every_tokenizer_gives_lower_case_words(text, name):
    assert all(word == word.lower() and not any(c.isspace() for c in word) for word in open_tokenizer(name)(text))


@given(st.text("abC 'é-.,5’", max_size=30))
def test_spans_are_where_the_words_are(text):
    assert [text[a:b].lower().replace("’", "'") for a, b in word_spans(text)] == tokenize(text)
