"""What the bridge reads unseen words as: by meaning, and by their place in the sentence."""

from __future__ import annotations

import numpy as np
import pytest

from hero_plugin.integrations.data.contexts import Contexts
from hero_plugin.integrations.data.words import Vocabulary, WordVectors, tokenize
from hero_plugin.integrations.training.queries import BridgedWords
from tests.training.files import query

NAMES = ["zebra", "box", "crate", "door", "chest"]
ROWS = np.array([[0, 0, 1], [0, 2, 0], [0.6, 0.8, 0], [1, 0, 0], [0.6, 0.79, 0]], np.float32)


def words(contexts: Contexts, unknown: np.ndarray | None = None) -> BridgedWords:
    counts = {"door": 3, "box": 1, "lost": 5}
    known = Vocabulary(("door", "box", "lost", "chest"), trained=3, counts=counts, contexts=contexts)
    return BridgedWords.of_table(WordVectors(NAMES, ROWS), tokenize, known, max_words=4, unknown=unknown)


def test_unseen_words_are_mixed_of_trained_ones_alone_greatest_share_first():
    (crate, mixture), zebra = words(Contexts({})).read_as("box crate zebra nowhere")
    share = 1 / (1 + 3 * np.exp(-2))  # cosines 0.8 and 0.6 at temperature 0.1, said once and three times
    assert crate == "crate" and list(mixture) == ["box", "door"]  # not the nearer chest, which training never had
    assert mixture == pytest.approx({"box": share, "door": 1 - share})
    assert zebra == ("zebra", {})


def test_what_is_no_word_is_left_as_it_is():
    known = Vocabulary(("door", "box"), trained=2, counts={"door": 3, "box": 1}, contexts=Contexts({}))
    table = WordVectors([*NAMES, ","], np.concatenate([ROWS, ROWS[:1] + ROWS[1:2]]))
    bridged = BridgedWords.of_table(table, str.split, known, max_words=4)
    assert [word for word, _ in bridged.read_as("box , crate")] == ["crate"]


def test_the_place_speaks_for_the_words_that_training_had_there():
    contexts = Contexts.of([["walks", "through", "door"]] * 20)
    bridged = words(contexts)
    ((_, at_the_end),) = bridged.read_as("walks through crate")
    ((_, alone),) = bridged.read_as("crate")
    # beside both neighbours and the end 20 times each; of 9 words 3 are doors
    more = 1.5 * np.log(1 + 20 * 9 / (10 * 3))
    share = 1 / (1 + 3 * np.exp(-2 + more))
    assert at_the_end["box"] == pytest.approx(share)
    assert at_the_end["door"] > 0.8 > alone["door"]
    twice = [mixture for _, mixture in bridged.read_as("walks through crate crate")]
    assert twice[0]["door"] != twice[1]["door"]


def test_a_query_that_is_cut_goes_on_after_the_cut_for_its_last_word():
    bridged = words(Contexts.of([["opens", "door"], *[["a", "b", "c", "box", "then", "goes"]] * 20]))
    vectors, mask = bridged.batch([query("a b c crate then goes crate")])
    assert mask.sum() == 4
    ((_, mixture),) = bridged.read_as("a b c crate then goes crate")  # the last one is not read
    expected = sum(share * ROWS[NAMES.index(word)] for word, share in mixture.items())
    np.testing.assert_allclose(vectors[0, 3], expected, atol=1e-6)
    ((_, cut),) = bridged.read_as("a b c crate")
    assert cut["box"] < mixture["box"]


def test_batches_hold_the_mixtures_and_leave_the_rest():
    unknown = np.array([5, 5, 5], np.float32)
    bridged = words(Contexts.of([["opens", "box"]]), unknown)
    records = [query("crate"), query("opens crate nowhere zebra chest")]
    vectors, mask = bridged.batch(records)
    before, same = bridged.queries.batch(records)
    assert np.array_equal(mask, same) and mask.sum(1).tolist() == [1, 4]
    for row, (sentence, place) in enumerate((("crate", 0), ("opens crate nowhere zebra chest", 1))):
        mixed = dict(bridged.read_as(sentence))["crate"]
        expected = sum(share * ROWS[NAMES.index(word)] for word, share in mixed.items())
        np.testing.assert_allclose(vectors[row, place], expected, atol=1e-6)
        before[row, place] = expected
    np.testing.assert_allclose(vectors, before, atol=1e-6)
    assert vectors[1, 0].tolist() == vectors[1, 2].tolist() == [5, 5, 5]  # words without a vector
    assert vectors[1, 3].tolist() == [0, 0, 1]  # near nothing
    assert np.array_equal(bridged.batch([query("box door")])[0], bridged.queries.batch([query("box door")])[0])
