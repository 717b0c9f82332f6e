"""What goes into a batch: words, clips and labels where they belong, padding empty."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hero_plugin.adapters.emb.model import PAD, UNK
from hero_plugin.integrations.data.feature_bank import StoreBank
from hero_plugin.integrations.data.features import MemoryFeatures
from hero_plugin.integrations.data.moments import moment_to_clips
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Vocabulary, WordVectors, tokenize
from hero_plugin.integrations.support.errors import DataError
from hero_plugin.integrations.tools.demo import OBJECTS, VERBS, SyntheticConfig, make_synthetic
from hero_plugin.integrations.training.dataset import check_records, moments_on_clips
from hero_plugin.integrations.training.emb import WordIds
from hero_plugin.integrations.training.task import VectorCollate, VectorExample

RANDOM = np.random.default_rng(0)
STORE = MemoryFeatures({"short": RANDOM.random((3, 4), np.float32), "long": RANDOM.random((7, 4), np.float32)})
VECTORS = WordVectors(["a", "door", "opens", "closes"], RANDOM.random((4, 5), np.float32))
RECORDS = [
    Record("q0", "long", "A door opens", ((2.0, 9.0),), 14.0),
    Record("q1", "short", "a wardrobe closes slowly today", ((0.0, 3.0), (4.0, 6.0)), 6.0),
]


def words(records):
    return [tokenize(record.sentence) for record in records]


@pytest.fixture
def vocabulary():
    return Vocabulary.of(words(RECORDS), [], VECTORS, mean_length=2.0)


def test_a_batch_holds_each_query_and_nothing_at_the_padding(vocabulary):
    bank = StoreBank(STORE, ["long", "short"])
    examples = [VectorExample(*each) for each in moments_on_clips(RECORDS, bank)]
    batch = VectorCollate(bank, WordIds(vocabulary, tokenize, max_words=128))(examples)
    assert batch["words"].tolist() == [[2, 3, 4, PAD, PAD], [2, UNK, 5, UNK, UNK]]
    assert batch["word_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["video_mask"].sum(1).tolist() == [7, 3] == batch["clips"].tolist()
    np.testing.assert_array_equal(batch["video"][0], STORE["long"])
    np.testing.assert_array_equal(batch["video"][1, :3], STORE["short"])
    assert not batch["video"][1, 3:].any()
    assert (batch["first"][0], batch["last"][0]) == moment_to_clips(2.0, 9.0, 7, 14.0)
    assert batch["durations"].tolist() == [14.0, 6.0]
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in batch.values())


def test_training_takes_every_moment_of_a_query_and_scoring_each_query_once():
    bank = StoreBank(STORE, ["long", "short"])
    assert len(moments_on_clips(RECORDS, bank, for_training=True)) == 3
    assert len(moments_on_clips(RECORDS, bank)) == 2
    assert moments_on_clips([], bank) == []


def test_long_sentences_are_cut_and_unlabelled_queries_can_be_scored(vocabulary):
    bank = StoreBank(STORE, ["long", "short"])
    unlabelled = Record("q2", "long", "a a a a a", (), 14.0)
    (example,) = [VectorExample(*each) for each in moments_on_clips([unlabelled], bank)]
    batch = VectorCollate(bank, WordIds(vocabulary, tokenize, max_words=3))([example])
    assert batch["words"].tolist() == [[2, 2, 2]]


@pytest.mark.parametrize(
    ("asked", "gigabytes", "kept"),
    [
        ("auto", 1.0, "float32"),
        ("auto", 100e-9, "float16"),
        ("auto", 10e-9, "disk"),
        ("disk", 1.0, "disk"),
        ("float16", 1e-12, "float16"),
    ],
)
def test_features_are_kept_as_they_fit(asked, gigabytes, kept):
    bank = StoreBank(STORE, ["short", "long", "short"], storage=asked, gigabytes=gigabytes)
    assert bank.storage == kept
    features, mask = bank.batch([1, 0])
    assert features.dtype == np.float32
    tolerance = 1e-3 if kept == "float16" else 0.0
    np.testing.assert_allclose(features[0], STORE["long"], atol=tolerance)
    np.testing.assert_allclose(features[1, :3], STORE["short"], atol=tolerance)
    assert mask.tolist() == [[True] * 7, [True] * 3 + [False] * 4]


@pytest.mark.parametrize(("storage", "gigabytes"), [("float16", 1.0), ("auto", 100e-9)])
def test_what_float16_cannot_hold_is_told(storage, gigabytes):
    """Whether features are halved while they are read or once float32 has turned out too large."""
    store = MemoryFeatures({"a": np.full((4, 1), 1e5, np.float32), "b": np.ones((40, 1), np.float32)})
    with pytest.raises(DataError, match="video a: features beyond 65,504, which float16 cannot hold -> give --storage"):
        StoreBank(store, ["a", "b"], storage=storage, gigabytes=gigabytes)
    assert StoreBank(store, ["a"], storage="float32").batch([0])[0].max() == 1e5


def test_the_table_is_scaled_and_extended_without_moving_old_words(vocabulary):
    table = vocabulary.table(VECTORS)
    assert np.linalg.norm(table, axis=1).mean() == pytest.approx(2.0, rel=1e-5)
    more = WordVectors(["today", *VECTORS.words], np.vstack([np.ones((1, 5), np.float32), VECTORS.vectors]))
    extended = vocabulary.extended(words(RECORDS), more)
    assert extended.words == (*vocabulary.words, "today")
    np.testing.assert_array_equal(extended.table(more)[:-1], table)
    assert extended.table(more)[-1] == pytest.approx(vocabulary.scale)
    assert Vocabulary.from_json(extended.to_json()) == extended


def test_words_that_training_lacks_are_known_as_such():
    vocabulary = Vocabulary.of([["a", "door"]], [["a", "door"], ["closes"]], VECTORS, 0)
    assert vocabulary.words == ("a", "door", "closes")
    assert vocabulary.unseen(["a", "closes", "wardrobe", "closes"]) == ["closes", "wardrobe"]
    assert vocabulary.unseen(tokenize("A wardrobe, a door.", "treebank")) == ["wardrobe"]  # marks are no words
    assert vocabulary.scale == 1.0


def test_words_that_training_said_without_a_vector_are_not_unseen():
    said = ["a", "wardrobe", "closes"]
    assert "wardrobe" not in VECTORS
    vocabulary = Vocabulary.of([said], [], VECTORS, 0)
    for each in (vocabulary, Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))):
        assert each.unseen([*said, "door"]) == ["door"]
        assert each.trained_words() == {"a", "closes"}  # the bridge mixes those that have vectors
    more = WordVectors([*VECTORS.words, "wardrobe"], np.vstack([VECTORS.vectors, np.ones((1, 5), np.float32)]))
    learned = vocabulary.extended([said], more).adapted_to([said])
    assert learned.adapted == ("wardrobe",) and "wardrobe" in learned.trained_words()
    kept = {name: value for name, value in vocabulary.to_json().items() if name != "contexts"}
    assert Vocabulary.from_json(kept).unseen(said) == ["wardrobe"]  # of an earlier version, whose rows alone tell


def test_the_scale_of_words_is_that_of_training_whatever_the_test_set_says():
    alone = Vocabulary.of([["a", "door"]], [], VECTORS, 5.5)
    assert Vocabulary.of([["a", "door"]], [["closes"], ["opens"]], VECTORS, 5.5).scale == alone.scale
    lengths = np.linalg.norm(alone.table(VECTORS)[-2:], axis=1)
    assert lengths.mean() == pytest.approx(5.5)


def test_all_problems_of_the_queries_come_at_once():
    records = [
        *RECORDS,
        Record("q3", "gone", "a door", ((0.0, 1.0),), 2.0),
        Record("q4", "gone", "opens", ((0.0, 1.0),), 2.0),
        Record("q5", "long", "...", ((0.0, 1.0),), 14.0),
    ]
    with pytest.raises(DataError) as caught:
        check_records(records, STORE, tokenize, "test.json")
    text = str(caught.value)
    assert len(caught.value.problems) == 2
    assert "test.json: video gone: 2 queries, and no features in features in memory" in text
    assert "query q5: no word in '...'" in text


def test_synthetic_data_is_the_same_each_time_and_as_described():
    config = SyntheticConfig(train_videos=150, test_videos=15)
    one, other = make_synthetic(config), make_synthetic(config)
    assert one.sets == other.sets
    assert all(np.array_equal(one.features[video], other.features[video]) for video in one.features)
    assert one.sets != make_synthetic(SyntheticConfig(train_videos=150, test_videos=15, seed=1)).sets

    def content(name):
        concepts = {word for group in (*VERBS, *OBJECTS) for word in group}
        return {word for record in one.sets[name] for word in tokenize(record.sentence)} & concepts

    assert not content("train") & content("unseen")
    assert content("seen") <= content("train")
    for seen, unseen in zip(one.sets["seen"], one.sets["unseen"], strict=True):
        assert (seen.video_id, seen.moments) == (unseen.video_id, unseen.moments)
    train = {record.video_id for record in one.sets["train"]}
    assert not train & {record.video_id for record in one.sets["seen"]}
    for records in one.sets.values():
        for record in records:
            (start, end), clips = record.moments[0], len(one.features[record.video_id])
            assert 0 <= start < end <= record.duration == 2.0 * clips
            assert all(word in one.vectors for word in tokenize(record.sentence))


def test_no_two_events_of_a_synthetic_video_answer_one_query():
    data = make_synthetic(SyntheticConfig(train_videos=40, test_videos=1))
    meaning = {word: index for groups in (VERBS, OBJECTS) for index, group in enumerate(groups) for word in group}
    kinds = {word: kind for kind, groups in enumerate((VERBS, OBJECTS)) for group in groups for word in group}
    asked: dict[tuple, tuple] = {}
    for record in data.sets["train"]:
        concepts = tuple((kinds[word], meaning[word]) for word in tokenize(record.sentence) if word in kinds)
        assert asked.setdefault((record.video_id, concepts), record.moments) == record.moments
