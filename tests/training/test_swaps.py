"""Words of training sentences that give way to near ones: which, how often, the same after an interruption."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from hero_plugin.integrations.data.words import WordVectors, load_word_vectors, tokenize
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.process import Interrupted
from hero_plugin.integrations.support.settings import ConfigError
from hero_plugin.integrations.training.bases import BASES, config_from
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.emb import WordIds
from hero_plugin.integrations.training.engine import Trainer
from hero_plugin.integrations.training.queries import NEAR_WORDS, WordSwaps, near_words
from hero_plugin.integrations.training.run_folder import RunFolderError
from hero_plugin.integrations.training.train import main
from tests.screen import QUIET
from tests.training.files import detr_settings, query, write_published


def test_near_words_are_the_nearest_that_training_lacks():
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(60)]
    vectors = (rng.normal(size=(60, 4)) * rng.uniform(0.1, 9, size=(60, 1))).astype(np.float32)
    training = [*words[:20], "not-in-the-table"]
    found = near_words(training, WordVectors(words, vectors), tokenize)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    for place, word in enumerate(words[:20]):
        cosines = sorted(((unit[place] @ unit[other], words[other]) for other in range(20, 60)), reverse=True)
        assert found.get(word, ()) == tuple(name for cosine, name in cosines[:NEAR_WORDS] if cosine > 0.55)
    assert set(found) <= set(words[:20])


def test_what_the_tokenizer_cuts_is_no_near_word():
    table = WordVectors(["door", "the door", "door.", "gate"], np.ones((4, 3), np.float32))
    assert near_words(["door"], table, tokenize) == {"door": ("gate",)}
    assert near_words(["door", "gate"], table, tokenize) == {}


SENTENCES = ["A person opens the Door.", "they don't close a door,  then", "person’s door", "zebra"]
NEAR = {"door": ("gate", "portal"), "person": ("human",), "do": ("does",)}


def swapped(share, seed=0, epoch=0, style="words", sentences=SENTENCES):
    swaps = WordSwaps(NEAR, share, partial(tokenize, style=style))
    return [record.sentence for record in swaps.records([query(each) for each in sentences], seed, epoch)]


@pytest.mark.parametrize("style", ["words", "treebank"])
def test_near_words_take_the_place_of_words_and_of_nothing_else(style):
    split = partial(tokenize, style=style)
    for before, after in zip(SENTENCES, swapped(1.0, style=style), strict=True):
        expected = [NEAR.get(word, (word,)) for word in split(before)]
        assert all(word in allowed for word, allowed in zip(split(after), expected, strict=True)), after
    assert swapped(0.0, style=style) == SENTENCES
    assert swapped(1.0, style=style)[3] == "zebra"


def test_a_sentence_that_would_be_cut_otherwise_stays():
    swaps = WordSwaps({"door": ("gate",)}, 1.0, lambda sentence: ["door"] if "door" in sentence else ["two", "words"])
    assert swaps.records([query("a door")], 0, 0)[0].sentence == "a door"
    changing = WordSwaps({"door": ("gate",)}, 1.0, lambda sentence: [sentence.upper()])
    assert changing.records([query("a door")], 0, 0)[0].sentence == "a door"


def test_each_epoch_and_seed_draws_anew_as_often_as_asked():
    many = ["door"] * 4000
    first = swapped(0.25, sentences=many)
    assert first == swapped(0.25, sentences=many)
    assert first != swapped(0.25, epoch=1, sentences=many) and first != swapped(0.25, seed=1, sentences=many)
    shares = {word: first.count(word) / 4000 for word in ("door", "gate", "portal")}
    for word, expected in {"door": 0.75, "gate": 0.125, "portal": 0.125}.items():
        assert abs(shares[word] - expected) < 5 * (0.25 / 4000) ** 0.5


@pytest.fixture(scope="module")
def table(runs, tmp_path_factory):
    """The runs' word table, with two words near each of its own."""
    words = load_word_vectors(runs.files.root / "words.npz")
    rng = np.random.default_rng(0)
    names = [*words.words, *(f"{word}{letter}" for letter in "xy" for word in words.words)]
    near = [words.vectors + 0.1 * rng.normal(size=words.vectors.shape) for _ in "xy"]
    path = tmp_path_factory.mktemp("table") / "near.npz"
    np.savez(path, words=np.array(names), vectors=np.concatenate([words.vectors, *near]).astype(np.float32))
    return str(path)


def settings(runs, table, output, **changes):
    small = {"swap_words": 0.5, "words": table, "figure_queries": 0, "base_only": True}
    return runs.config(output=str(output), **{**small, **changes})


@pytest.mark.slow
def test_a_run_on_swapped_words_ends_the_same_after_an_interruption(runs, table, tmp_path, monkeypatch):
    whole = main(settings(runs, table, tmp_path / "whole"), QUIET)
    due = Trainer._checkpoint_is_due

    def interrupted(self):
        if (self.progress.epoch, self.progress.step) == (1, 1):
            signal.raise_signal(signal.SIGINT)
        return due(self)

    monkeypatch.setattr(Trainer, "_checkpoint_is_due", interrupted)
    with pytest.raises(Interrupted):
        main(settings(runs, table, tmp_path / "run"), QUIET)
    monkeypatch.setattr(Trainer, "_checkpoint_is_due", due)
    resumed = main(replace(settings(runs, table, tmp_path / "run"), resume=True), QUIET)
    ours, theirs = (load_checkpoint(run.last)["model"] for run in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    plain = main(settings(runs, table, tmp_path / "plain", swap_words=0.0), QUIET)
    assert any(not torch.equal(value, ours[name]) for name, value in load_checkpoint(plain.last)["model"].items())

    # The vocabulary has the near words behind those of the data, and none of them counts as trained.
    vocabulary, without = whole.vocabulary(), plain.vocabulary()
    assert vocabulary["words"][: len(without["words"])] == without["words"]
    assert {name: vocabulary[name] for name in ("trained", "scale", "counts")} == {
        name: without[name] for name in ("trained", "scale", "counts")
    }
    assert len(vocabulary["words"]) > len(without["words"])

    # A run from before there were swaps goes on without them.
    older = json.loads(plain.config_file.read_text())
    del older["swap_words"], older["hero"]["perturb"]
    plain.config_file.write_text(json.dumps(older))
    main(replace(settings(runs, table, plain.path, swap_words=0.0), resume=True), QUIET)
    with pytest.raises(RunFolderError, match=r"swap_words: was 0\.0, now 0\.5"):
        main(replace(settings(runs, table, plain.path), resume=True), QUIET)
    scores = evaluate(EvalConfig(run=(whole.path,), resamples=0, bridge=True), QUIET)
    assert scores


def test_emb_reads_the_near_words_vectors(runs, table):
    config = settings(runs, table, "unused").checked()
    base = BASES["emb"]
    data = base.read(config, {"train": config.annotations_train})
    vocabulary = base.vocabulary(config, data)
    assert data.swaps is not None and set(data.swaps.words) <= set(vocabulary.words)
    assert not vocabulary.is_trained(data.swaps.words).any()
    bank = data.bank("auto", 1.0, QUIET)
    words = WordIds(vocabulary, data.tokenize, config.positions)
    sets = {"train": data.swaps.records(data.sets["train"], 0, 0)}
    before, after = (
        base.examples(config, each, "train", bank, vocabulary, for_training=True)
        for each in (data, replace(data, sets=sets))
    )
    changed = 0
    for ours, theirs in zip(before, after, strict=True):
        assert (ours.video, ours.first, ours.last) == (theirs.video, theirs.first, theirs.last)
        ids, swapped_ids = (words.batch([each.record])[0] for each in (ours, theirs))
        assert ids.shape == swapped_ids.shape and swapped_ids.min() >= 2
        changed += (ids != swapped_ids).sum()
    assert 0.3 < changed / sum(words.batch([each.record])[1].sum() for each in before) < 0.7


@pytest.mark.slow
def test_a_detr_trains_on_swapped_words(runs, table, tmp_path):
    changes = {"swap_words": 0.5, "words": table, "epochs": 1, "figure_queries": 0, "base_only": True}
    config = config_from(detr_settings(runs.files, "qd_detr", output=str(tmp_path / "run"), **changes), "test")
    data = BASES["qd_detr"].read(config, {"train": config.annotations_train})
    records = data.swaps.records(data.sets["train"], config.seed, 0)
    vectors, mask = data.queries.batch(records)
    assert (np.linalg.norm(vectors, axis=-1) > 0)[mask].all()  # the table's words, and none that it lacks
    assert main(config, QUIET).finished


def test_what_cannot_be_swapped_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"--swap-words is a probability from 0 to 1, got 1\.5"):
        runs.config(output="unused", swap_words=1.5).checked()
    with pytest.raises(UserError, match=r"words\.npz has no word near one of the training sentences that they lack"):
        words = load_word_vectors(runs.files.root / "words.npz", {"person", "a", "the"})
        np.savez(tmp_path / "words.npz", words=np.array(words.words), vectors=words.vectors)
        main(settings(runs, str(tmp_path / "words.npz"), tmp_path / "run"), QUIET)
    published = write_published(tmp_path / "published").settings("qd_detr", output=str(tmp_path / "qd"), swap_words=0.2)
    with pytest.raises(ConfigError, match="--swap-words needs a table of word vectors, --words"):
        config_from(published, "test").checked()
