"""Which words fit a place, against counting by hand."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.integrations.data.contexts import Contexts
from tests.core.bases import quick

WORDS = st.sampled_from(["a", "box", "door", "holds", "opens"])
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=8)


def by_hand(sentences, sentence, place, counts):
    """Look at every place of every sentence."""
    there = ["", *sentence, ""]
    more = dict.fromkeys(counts, 0.0)
    for offset in (-2, -1, 1, 2):
        here = place + 1 + offset
        if not 0 <= here < len(there):
            continue
        beside = Counter()
        for other in sentences:
            bounded = ["", *other, ""]
            for at, word in enumerate(bounded):
                if 0 <= at + offset < len(bounded) and bounded[at + offset] == there[here]:
                    beside[word] += 1
        for word, count in counts.items():
            more[word] += 0.5 * math.log(1 + beside[word] * sum(counts.values()) / (10 * count))
    return more


@quick
@given(SENTENCES, st.lists(st.one_of(WORDS, st.just("zebra")), min_size=1, max_size=5), st.data())
def test_the_formula(sentences, sentence, data):
    place = data.draw(st.integers(0, len(sentence) - 1))
    counts = Counter(word for each in sentences for word in each)
    found = Contexts.of(sentences).expected(sentence, place, counts)
    for word, more in by_hand(sentences, sentence, place, counts).items():
        assert found.get(word, 0.0) == pytest.approx(more)


@quick
@given(SENTENCES, SENTENCES)
def test_they_come_back_from_json_and_more_sentences_add(first, second):
    both = Contexts.of([*first, *second])
    assert Contexts.of(second, Contexts.of(first)).to_json() == both.to_json()
    assert Contexts.from_json(json.loads(json.dumps(both.to_json()))).to_json() == both.to_json()


def test_the_word_in_question_is_not_looked_at_and_none_is_expected_without_sentences():
    contexts = Contexts.of([["a", "door", "opens"]])
    counts = {"a": 1, "door": 1, "opens": 1}
    assert contexts.expected(["a", "gate", "opens"], 1, counts) == contexts.expected(["a", "box", "opens"], 1, counts)
    assert contexts and not Contexts({})
    assert Contexts({}).expected(["a", "gate"], 1, counts) == {}
