"""The demo: both models on the same data, without and with the bridge, in one table."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from hero_plugin.integrations.data.features import MemoryFeatures
from hero_plugin.integrations.data.words import Vocabulary, tokenize
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools import demo
from hero_plugin.integrations.tools.demo import OBJECTS, VERBS, DemoConfig, SyntheticConfig, make_synthetic
from hero_plugin.integrations.training.emb import EmbData
from tests.screen import QUIET


@pytest.fixture
def small_demo(monkeypatch):
    sizes = SyntheticConfig(train_videos=12, test_videos=6, clips=(12, 14))
    monkeypatch.setattr(demo, "SyntheticConfig", lambda seed: replace(sizes, seed=seed))


@pytest.mark.slow
def test_the_demo_treats_both_alike_and_prints_one_table(small_demo, tmp_path, capsys):
    folder = tmp_path / "demo-run"
    results = demo.main(DemoConfig(folder, epochs=1), Screen(Console(width=120)))
    out = capsys.readouterr().out
    assert set(results) == {"EMB", "EMB, bridge", "HERO-EMB", "HERO-EMB, bridge"}
    assert all({"seen", "unseen"} <= set(scores) for scores in results.values())
    assert json.loads((folder / "demo.json").read_text())["scores"] == results
    assert out.count("R1@0.3") == 1
    assert "the query figures leave" not in out  # both models are on them
    assert str(folder / "hero-emb/figures/recall.png") in out.replace("\n", "")
    base, hero = (json.loads((folder / name / "config.json").read_text()) for name in ("emb", "hero-emb"))
    assert {name for name in base if base[name] != hero[name]} == {"base_only", "compare", "figure_queries"}
    assert len((folder / "emb/log.jsonl").read_text().splitlines()) == 1
    demo.main(DemoConfig(folder, epochs=1), QUIET)


def test_the_demo_spares_folders_of_others(small_demo, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="no demo made it"):
        demo.main(DemoConfig(tmp_path, epochs=1), QUIET)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["base", "hero"])
def test_the_bridged_scores_are_those_of_eval(runs, kind):
    run, made = getattr(runs, kind), runs.files.data
    data = EmbData(made.sets, MemoryFeatures(made.features), tokenize, made.vectors)
    expected = evaluate(EvalConfig(run=(run.path,), device="cpu", resamples=0, bridge=True), QUIET)
    assert demo.bridged(run, data, QUIET) == {name: pytest.approx(scores) for name, scores in expected.items()}


def test_examples_lead_unseen_words_to_trained_ones_most_to_their_synonyms():
    made = make_synthetic(SyntheticConfig())
    data = EmbData(made.sets, MemoryFeatures(made.features), tokenize, made.vectors)
    known = Vocabulary.of(data.sentences("train"), data.sentences(), made.vectors, 0.0)
    assert not known.unseen(word for sentence in data.sentences("seen") for word in sentence)  # nothing to bridge
    head, *lines = demo.describe_bridge(data, known, examples=40).splitlines()
    assert head.startswith("The bridge reads unseen words") and len(lines) == 40
    concepts = {word: words for words in (*VERBS, *OBJECTS) for word in words}
    right = []
    for line, record in zip(lines, made.sets["unseen"], strict=False):
        sentence, parts = line.strip().split(": ")
        assert sentence == record.sentence
        for part in parts.split("; "):
            word, mixture = part.split(" -> ")
            first = mixture.split()[0]
            assert known.unseen([word]) and not known.unseen([first])
            right.append(first in concepts[word])
    assert np.mean(right) > 0.8
