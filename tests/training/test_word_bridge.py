"""What the bridge reads unseen words as: by meaning, by their place in the sentence, and by tokens of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hero_plugin import Bridge
from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.contexts import Contexts
from hero_plugin.integrations.data.words import Vocabulary, WordVectors, tokenize
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.bases import BASES, config_from
from hero_plugin.integrations.training.load_run import load_run
from hero_plugin.integrations.training.queries import (
    ARRAY,
    BridgedTokens,
    BridgedWords,
    QueryFiles,
    WordQueries,
    bridged_words,
    training_tokens,
)
from hero_plugin.integrations.training.train import main
from tests.screen import QUIET
from tests.training.files import query, write_published

NAMES = ["zebra", "box", "crate", "door", "chest"]
ROWS = np.array([[0, 0, 1], [0, 2, 0], [0.6, 0.8, 0], [1, 0, 0], [0.6, 0.79, 0]], np.float32)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published"))


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


def test_the_bridge_leads_unseen_words_of_the_table_to_trained_ones(tmp_path):
    names, rows = ["door", "box", "crate"], np.array([[1, 0], [0, 2], [0.6, 0.8]], np.float32)
    np.savez(tmp_path / "words.npz", words=np.array(names), vectors=rows)
    queries = WordQueries(WordVectors(names, rows, tmp_path / "words.npz"), tokenize, 3, True)
    known = Vocabulary(("door", "box", "zebra"), trained=2, counts={"door": 3, "box": 1})
    words, _ = bridged_words(queries, known).batch([query("box crate zebra")])
    np.testing.assert_allclose(words[0, 0], [0, 1], atol=1e-5)  # a trained word
    weights = torch.tensor([6.0 + np.log(3), 8.0]).softmax(0).tolist()  # cosines 0.6 and 0.8 at temperature 0.1
    np.testing.assert_allclose(words[0, 1], weights, atol=1e-4)
    assert words[0, 2].tolist() == [0, 0]  # without a vector
    np.testing.assert_allclose(queries.batch([query("crate")])[0][0], [[0.6, 0.8]], atol=1e-4)  # as it was


def test_the_bridge_leads_unseen_tokens_to_those_of_the_run_s_training(published, tmp_path):
    """It reads the run's own files, wherever the queries' own lie."""
    numbers, axes = np.random.default_rng(0), np.eye(8, dtype=np.float32)
    for folder in ("training", "new"):
        (tmp_path / folder).mkdir()
    for qid in range(10):
        tokens = axes[numbers.integers(0, 4, size=6)] + numbers.normal(scale=0.02, size=(6, 8)).astype(np.float32)
        np.savez(tmp_path / "training" / f"qid{qid}.npz", **{ARRAY: tokens})
    records = read_annotations(published.root / "val.jsonl")
    for record in records:
        tokens = np.stack([axes[0], 0.8 * axes[0] + axes[5]])
        np.savez(tmp_path / "new" / f"qid{record.query_id}.npz", **{ARRAY: tokens})
    settings = config_from(published.settings("qd_detr", output="unused"), "test").checked()
    settings = replace(settings, query_features=tmp_path / "training", normalize_words=False)
    files = QueryFiles(replace(settings, query_features=tmp_path / "new"), records)
    queries = BridgedTokens(files, Bridge.of_tokens(training_tokens(settings)))
    words, mask = queries.batch(records)
    assert mask.all()
    np.testing.assert_array_equal(words[:, 0], np.tile(axes[0], (len(records), 1)))  # training had it
    np.testing.assert_allclose(words[:, 1], np.tile(axes[0], (len(records), 1)), atol=0.1)  # it did not have this

    np.savez(tmp_path / "training" / "qid0.npz", **{ARRAY: axes[:2], "sentence": np.array("another")})
    with pytest.raises(UserError, match=r"of the run's training queries: .*qid0 holds the vectors of 'another'"):
        training_tokens(settings)
    with pytest.raises(UserError, match=r"remembers tokens of the run's training queries: no qid\d\.npz in"):
        training_tokens(replace(settings, query_features=tmp_path / "new"))
    with pytest.raises(UserError, match=r"files were in .*: no such folder"):
        training_tokens(replace(settings, query_features=tmp_path / "gone"))


def test_the_bridge_of_an_adapted_run_remembers_all_that_it_learned(published, tmp_path):
    settings = config_from(published.settings("qd_detr", output=str(tmp_path / "run"), epochs=1), "test").checked()
    run, shots = main(settings, QUIET), tmp_path / "shots.jsonl"
    write_annotations(read_annotations(published.root / "val.jsonl")[:2], shots, format="qvhighlights")
    whole, alone = training_tokens(settings), training_tokens(replace(settings, annotations_train=shots))
    adapted = {"past": [str(settings.annotations_train)]}
    run.write_json(run.path / "config.json", {**run.config(), "annotations_train": str(shots), "adapted": adapted})
    data = BASES["qd_detr"].read(run.settings(), {"val": published.root / "val.jsonl"})
    bridge = load_run(run, data, QUIET, bridge=True).task.collate.queries.bridge
    found = training_tokens(run.settings(), [settings.annotations_train])
    assert torch.equal(bridge.known, Bridge.of_tokens(found).known)
    rows = [set(map(tuple, each.tolist())) for each in (whole, alone, found, found[: len(found) // 2])]
    assert rows[2] == rows[0] | rows[1]
    assert rows[1] <= rows[3]  # the few of the adaptation come among the first
    with pytest.raises(UserError, match=r"remembers tokens of the run's training queries, and there is no .*gone"):
        training_tokens(settings, [tmp_path / "gone.jsonl"])
