"""``hero-plugin demo``: EMB beside HERO-EMB, and the bridge, on synthetic data, from nothing to table and figures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hero_plugin import HeroConfig
from hero_plugin.integrations.data.features import MemoryFeatures
from hero_plugin.integrations.data.synthetic import SyntheticConfig, make_synthetic
from hero_plugin.integrations.data.words import Vocabulary, tokenize
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import write_json
from hero_plugin.integrations.support.process import Interrupted
from hero_plugin.integrations.training.emb import EmbData, EmbTrainConfig
from hero_plugin.integrations.training.load_run import ground_with_bar, load_run
from hero_plugin.integrations.training.queries import BridgedWords
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Scores, scores_table
from hero_plugin.integrations.training.train import train

MARK = "demo.json"
SETS = {"seen": "words of the training queries", "unseen": "synonyms never trained on"}


@dataclass
class DemoConfig:
    """Train EMB and HERO-EMB on the same synthetic data, with the same seed and steps; print both."""

    output: Path = Path("demo-run")
    """Folder for both runs; what an earlier demo left there is replaced."""
    epochs: int = 8
    """Times each training query is seen, by either model."""
    seed: int = 0
    """Of the data and of both trainings."""
    threads: int = 1
    """CPU threads. More than one helps only where as many cores are idle."""


def run(config: DemoConfig) -> None:
    """Run the command."""
    try:
        main(config)
    except Interrupted:
        raise Interrupted("stopped; run the demo again to start it afresh") from None


def main(config: DemoConfig, screen: Screen | None = None) -> dict[str, dict[str, Scores]]:
    """Make the data, train both models and show them. Return the scores by model and set."""
    screen = screen or Screen()
    started = time.monotonic()
    if config.epochs < 1:
        raise UserError(f"--epochs must be at least 1, got {config.epochs}")
    _claim(config.output)
    synthetic = make_synthetic(SyntheticConfig(seed=config.seed))
    data = EmbData(synthetic.sets, MemoryFeatures(synthetic.features), tokenize, synthetic.vectors)
    screen.say(describe(data))
    recipe = recipe_of(config)
    # The query figures come once, from the second run, with both models in them.
    plain = replace(recipe, output=config.output / "emb", base_only=True, figure_queries=0)
    base = _train(plain, data, "EMB     ", screen)
    hero = replace(recipe, output=config.output / "hero-emb", compare=base.path)
    plugged = _train(hero, data, "HERO-EMB", screen)
    results: dict[str, dict[str, Scores]] = {}
    for name, trained in (("EMB", base), ("HERO-EMB", plugged)):
        results[name] = trained.results()["best"]
        results[f"{name}, bridge"] = bridged(trained, data, screen)
    screen.say(describe_bridge(data, Vocabulary.from_json(base.vocabulary())))
    show(results, screen)
    screen.say("Figures:")
    for path in sorted([*base.figures.rglob("*.png"), *plugged.figures.rglob("*.png")]):
        screen.say(f"  {path}")
    seconds = time.monotonic() - started
    write_json(config.output / MARK, {"seconds": round(seconds, 1), "scores": results})
    screen.say(f"done in {seconds:.0f} seconds; everything is in {config.output}")
    return results


def recipe_of(config: DemoConfig) -> EmbTrainConfig:
    """Return the paper's recipe on a smaller model, for smaller data: hidden size 64, learning rate 1e-3."""
    return EmbTrainConfig(
        epochs=config.epochs,
        seed=config.seed,
        threads=config.threads,
        device="cpu",
        dim=64,
        lr=1e-3,
        eval_every=2,
        eval_batch_size=128,
        hero=HeroConfig(),
    )


def describe(data: EmbData) -> str:
    """Say what the data is."""
    queries = ", ".join(f"{len(records)} {name}" for name, records in data.sets.items())
    return (
        f"Synthetic data: {len(data.videos())} videos; queries: {queries}.\n"
        "Test queries are about the same new videos twice: in words of the training queries (seen), "
        "and in synonyms that training never had (unseen)."
    )


def bridged(run: RunFolder, data: EmbData, screen: Screen) -> dict[str, Scores]:
    """Score the test sets again, as ``eval --bridge`` does: no training, other vectors of the unseen words."""
    loaded = load_run(run, replace(data, sets={name: data.sets[name] for name in SETS}), screen, bridge=True)
    size = loaded.config.eval_batch_size
    return {
        name: loaded.task.scores(items, ground_with_bar(loaded, name, items, size, screen))
        for name, items in loaded.sets.items()
    }


def describe_bridge(data: EmbData, known: Vocabulary, examples: int = 4) -> str:
    """Say how the bridge reads the words that training never had; the first queries are the examples."""
    words = BridgedWords.of_table(data.vectors, data.tokenize, known, max_words=128)
    lines = words.examples((record.sentence for record in data.sets["unseen"]), examples)
    return "\n".join(
        [
            "The bridge reads unseen words as mixtures of training's, by meaning and by place:",
            *map("  {}".format, lines),
        ]
    )


def show(results: Mapping[str, Mapping[str, Scores]], screen: Screen) -> None:
    """Show one table, base beside HERO, each without and with the bridge, for seen and for unseen words."""
    rows = {(name, model): results[model][name] for name in SETS for model in results}
    title = "R1 at IoU 0.3, 0.5, 0.7 and mean IoU, in percent"
    screen.show(scores_table(("test words", "model"), rows, title).terminal())


def _train(config: EmbTrainConfig, data: EmbData, label: str, screen: Screen) -> RunFolder:
    run = RunFolder.create(config.output or Path(), config.to_json(), resume=False, overwrite=True)
    return train(config, data, run, Screen(screen.console, label=label, quiet=screen.quiet), table=False)


def _claim(folder: Path) -> None:
    """Use a folder that is new, empty, or an earlier demo's; never anybody else's."""
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and no demo made it; choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {})
