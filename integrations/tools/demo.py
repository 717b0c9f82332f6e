"""``hero-plugin demo``: EMB beside HERO-EMB, and the bridge, on synthetic data, from nothing to table and figures.

The synthetic data, a small set in memory: events in videos, and sentences about them.

A *concept* is a verb or an object; it has a vector, and several synonymous words whose vectors lie near it. A video is
a sequence of events, each a verb and an object, with pauses between. A clip's features are a fixed random projection
of the concepts of its event, plus a constant peculiar to the video, plus noise. A sentence names one event with one
synonym of each concept, among function words, people and places that say nothing about it.

Training sentences use some of the synonyms. ``seen`` sentences use the same ones, ``unseen`` sentences only others;
both are about the same new videos, so that the words alone separate them.

The noise is Gaussian, the synonyms are exactly as near as a parameter says, and the videos have no pictures: scores
here say that the machinery works, not how good a model is on real videos.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hero_plugin.integrations.data import MemoryFeatures, Record, Vocabulary, WordVectors, tokenize
from hero_plugin.integrations.support import Interrupted, UserError, write_json
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.training.emb import EmbData, EmbTrainConfig
from hero_plugin.integrations.training.load_run import ground_with_bar, load_run
from hero_plugin.integrations.training.queries import BridgedWords
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Scores, scores_table
from hero_plugin.integrations.training.train import train

MARK = "demo.json"
SETS = ("seen", "unseen")


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
    queries = ", ".join(f"{len(records)} {name}" for name, records in data.sets.items())
    screen.say(
        f"Synthetic data: {len(data.videos())} videos; queries: {queries}.\n"
        "Test queries are about the same new videos twice: in words of the training queries (seen), "
        "and in synonyms that training never had (unseen)."
    )
    # The paper's recipe on a smaller model, for smaller data.
    recipe = EmbTrainConfig(
        epochs=config.epochs,
        seed=config.seed,
        threads=config.threads,
        device="cpu",
        dim=64,
        lr=1e-3,
        eval_every=2,
        eval_batch_size=128,
    )
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
    rows = {(name, model): results[model][name] for name in SETS for model in results}
    title = "R1 at IoU 0.3, 0.5, 0.7 and mean IoU, in percent"
    screen.show(scores_table(("test words", "model"), rows, title).terminal())
    screen.say("Figures:")
    for path in sorted([*base.figures.rglob("*.png"), *plugged.figures.rglob("*.png")]):
        screen.say(f"  {path}")
    seconds = time.monotonic() - started
    write_json(config.output / MARK, {"seconds": round(seconds, 1), "scores": results})
    screen.say(f"done in {seconds:.0f} seconds; everything is in {config.output}")
    return results


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
    return "\n  ".join(["The bridge reads unseen words as mixtures of training's, by meaning and by place:", *lines])


def _train(config: EmbTrainConfig, data: EmbData, label: str, screen: Screen) -> RunFolder:
    run = RunFolder.create(config.output or Path(), config.to_json(), resume=False, overwrite=True)
    return train(config, data, run, Screen(screen.console, label=label, quiet=screen.quiet), table=False)


def _claim(folder: Path) -> None:
    """Use a folder that is new, empty, or an earlier demo's; never anybody else's."""
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and no demo made it; choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {})


VERBS = (
    ("opens", "unlocks", "uncovers", "unseals", "unlatches", "unfastens"),
    ("closes", "shuts", "seals", "fastens", "locks", "bolts"),
    ("throws", "tosses", "flings", "hurls", "pitches", "lobs"),
    ("holds", "grips", "grasps", "clutches", "clasps", "clenches"),
    ("washes", "rinses", "cleans", "scrubs", "wipes", "scours"),
    ("watches", "observes", "views", "eyes", "studies", "inspects"),
    ("fixes", "repairs", "mends", "restores", "patches", "overhauls"),
    ("lifts", "raises", "hoists", "elevates", "heaves", "uplifts"),
)
OBJECTS = (
    ("cup", "mug", "glass", "tumbler", "goblet", "beaker"),
    ("door", "gate", "entrance", "portal", "hatch", "doorway"),
    ("book", "novel", "volume", "paperback", "tome", "booklet"),
    ("sofa", "couch", "settee", "divan", "loveseat", "futon"),
    ("phone", "telephone", "handset", "smartphone", "mobile", "cellphone"),
    ("coat", "jacket", "parka", "anorak", "blazer", "overcoat"),
    ("bag", "sack", "pouch", "satchel", "tote", "purse"),
    ("lamp", "lantern", "torch", "light", "candle", "spotlight"),
)
PEOPLE = ("person", "man", "woman", "boy", "girl", "someone")
PLACES = ("kitchen", "garage", "hallway", "bedroom", "garden", "office")
TEMPLATES = (
    "the {who} {verb} the {object}",
    "a {who} {verb} a {object} in the {place}",
    "in the {place} a {who} {verb} the {object}",
    "there is a {who} who {verb} the {object}",
    "the {who} then {verb} a {object}",
    "after that the {who} {verb} the {object} in the {place}",
)
FUNCTION_WORDS = ("the", "a", "in", "there", "is", "who", "then", "after", "that")


@dataclass(frozen=True)
class SyntheticConfig:
    """Sizes and difficulty. The same values give the same data, number for number."""

    train_videos: int = 240
    test_videos: int = 100
    queries: int = 3
    """Sentences per video."""
    clips: tuple[int, int] = (16, 28)
    """Fewest and most clips of a video; a clip lasts two seconds."""
    events: tuple[int, int] = (3, 4)
    """Fewest and most events of a video."""
    seen: int = 3
    """How many of the six synonyms of each concept training sentences use."""
    word_dim: int = 64
    video_dim: int = 96
    synonym_noise: float = 1.2
    """Length of a synonym's own part, relative to the concept's: at 1.2, synonyms have a cosine of about 0.4."""
    clip_noise: float = 1.0
    """Standard deviation of the noise on each feature, relative to the signal's."""
    video_noise: float = 0.5
    """The same for what a whole video shares."""
    seed: int = 0


@dataclass(frozen=True)
class SyntheticData:
    """Records by set (``train``, ``val``, ``seen``, ``unseen``), features by video, and the word table."""

    sets: dict[str, list[Record]]
    features: dict[str, np.ndarray]
    """(clips, video_dim) float32."""
    vectors: WordVectors


@dataclass(frozen=True)
class _Event:
    verb: int
    object: int
    first: int
    last: int


def make_synthetic(config: SyntheticConfig) -> SyntheticData:
    """Draw the whole data set.

    A third as many validation videos as test videos, with training words; ``seen`` and ``unseen`` share the
    test videos and events, and differ in their words only.
    """
    random = np.random.default_rng(config.seed)
    verbs, objects = _directions(random, len(VERBS), config), _directions(random, len(OBJECTS), config)
    vectors = _word_table(random, verbs, objects, config)
    projection = random.normal(size=(2, config.word_dim, config.video_dim)) / np.sqrt(config.word_dim)
    signal = verbs[:, None] @ projection[0] + (objects @ projection[1])[None]
    scale = signal.std()
    old, new = range(config.seen), range(config.seen, len(VERBS[0]))
    features: dict[str, np.ndarray] = {}
    sets: dict[str, list[Record]] = {name: [] for name in ("train", "val", "seen", "unseen")}
    videos = [("train", config.train_videos), ("val", max(1, config.test_videos // 3)), ("test", config.test_videos)]
    for split, count in videos:
        for number in range(count):
            video = f"{split}{number:04d}"
            clips = int(random.integers(config.clips[0], config.clips[1] + 1))
            events = _events(random, clips, config)
            features[video] = _render(random, events, clips, signal / scale, config)
            chosen = random.permutation(len(events))[: config.queries]
            for which, event in enumerate(events[index] for index in chosen):
                uses = (("seen", old), ("unseen", new)) if split == "test" else ((split, old),)
                for name, synonyms in uses:
                    sentence = _sentence(random, event, synonyms)
                    moment = (2.0 * event.first, 2.0 * (event.last + 1))
                    sets[name].append(Record(f"{video}_{which}", video, sentence, (moment,), 2.0 * clips, name))
    return SyntheticData(sets, features, vectors)


def _directions(random: np.random.Generator, count: int, config: SyntheticConfig) -> np.ndarray:
    """Draw unit vectors, one per concept: (count, word_dim)."""
    vectors = random.normal(size=(count, config.word_dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _word_table(
    random: np.random.Generator, verbs: np.ndarray, objects: np.ndarray, config: SyntheticConfig
) -> WordVectors:
    words: list[str] = []
    rows: list[np.ndarray] = []
    for names, concepts in ((VERBS, verbs), (OBJECTS, objects)):
        for synonyms, concept in zip(names, concepts, strict=True):
            own = random.normal(size=(len(synonyms), config.word_dim))
            own *= config.synonym_noise / np.linalg.norm(own, axis=1, keepdims=True)
            words.extend(synonyms)
            rows.extend(concept + own)
    others = (*PEOPLE, *PLACES, *FUNCTION_WORDS)
    words.extend(others)
    rows.extend(_directions(random, len(others), config))
    return WordVectors(words, np.asarray(rows, dtype=np.float32))


def _events(random: np.random.Generator, clips: int, config: SyntheticConfig) -> list[_Event]:
    """Draw events in order, with pauses; each shares its verb or its object with another, so that both count."""
    count = int(random.integers(config.events[0], config.events[1] + 1))
    verbs = random.choice(len(VERBS), 2, replace=False)
    objects = random.choice(len(OBJECTS), 3, replace=False)
    pairs = [(int(verb), int(thing)) for verb in verbs for thing in objects]
    pairs = [pairs[index] for index in random.permutation(len(pairs))[:count]]
    # Alternating pauses and events, of random shares of the video; an event lasts two clips or more.
    shares = random.dirichlet(np.r_[np.ones(count + 1), np.full(count, 3.0)])
    lengths = 2 + np.floor(shares[count + 1 :] * (clips - 2 * count)).astype(int)
    pauses = np.floor(shares[: count + 1] * (clips - 2 * count)).astype(int)
    events, at = [], 0
    for (verb, thing), pause, length in zip(pairs, pauses, lengths, strict=False):
        first = at + int(pause)
        at = first + int(length)
        events.append(_Event(verb, thing, first, at - 1))
    return events


def _render(
    random: np.random.Generator, events: list[_Event], clips: int, signal: np.ndarray, config: SyntheticConfig
) -> np.ndarray:
    """Draw features (clips, video_dim) float32; ``signal`` (verbs, objects, video_dim) has unit deviation."""
    features = np.zeros((clips, config.video_dim))
    for event in events:
        features[event.first : event.last + 1] = signal[event.verb, event.object]
    features += config.video_noise * random.normal(size=config.video_dim)
    features += config.clip_noise * random.normal(size=features.shape)
    return features.astype(np.float32)


def _sentence(random: np.random.Generator, event: _Event, synonyms: range) -> str:
    return str(random.choice(TEMPLATES)).format(
        who=random.choice(PEOPLE),
        place=random.choice(PLACES),
        verb=VERBS[event.verb][random.choice(synonyms)],
        object=OBJECTS[event.object][random.choice(synonyms)],
    )
