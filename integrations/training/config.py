"""The flags that every ``hero-plugin train`` has, and those that all commands on a finished run share."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from hero_plugin import HeroConfig
from hero_plugin.integrations.data.checks import OnBroken
from hero_plugin.integrations.data.feature_bank import Place, Storage
from hero_plugin.integrations.data.features import Pooling
from hero_plugin.integrations.support.settings import (
    ConfigError,
    FileConfig,
    filled,
    parse_named_paths,
    read_settings,
    too_small,
)
from hero_plugin.integrations.training.distributed import Amp
from hero_plugin.integrations.training.optim import OptimizerName, Schedule

Config = TypeVar("Config", bound="TrainConfig")

FEEDS_BASE = (
    *("tokenizer", "max_words", "word_norm", "normalize_words"),
    *("max_clips", "pooling", "clip_length", "normalize_features"),
)
"""Settings that decide what a base is given of the same query and video."""


@dataclass(frozen=True)
class TrainConfig(FileConfig):
    """The settings that the trainings of all bases share; a base's own config adds its model and brings its recipe."""

    sets = ("annotations_test",)
    required: ClassVar[tuple[str, ...]] = ("output", "annotations_train", "features")
    groups = {  # noqa: RUF012 (of the help)
        "data": "annotations_train annotations_val annotations_test features words query_features durations on_broken "
        "clip_length scored_clip_length max_clips pooling max_words tokenizer normalize_features normalize_words "
        "word_norm",
        "recipe": "epochs batch_size lr schedule lr_drop warmup optimizer weight_decay clip_norm seed swap_words",
        "HERO": "base_only paper init_base freeze_base hero",
        "speed": "device amp matmul threads workers storage memory features_on eval_batch_size",
        "output": "output config resume overwrite eval_every checkpoint_steps checkpoint_seconds compare "
        "figure_queries",
    }

    base: ClassVar[str]
    """As in `hero-plugin train BASE`."""
    title: ClassVar[str]
    """As the base's authors write it."""
    ranks_clips: ClassVar[bool] = False
    """Whether the base's clip scores serve only to rank clips, so that HERO calibrates them."""
    earlier: ClassVar[Mapping[str, Any]] = {
        "base": "emb",
        "schedule": "linear",
        "lr_drop": 400,
        "init_base": None,
        "freeze_base": False,
    }
    """Values of settings in runs made before the settings existed."""

    output: Path | None = None
    """The run's folder: settings, log, checkpoints, TensorBoard events and figures."""
    annotations_train: Path | None = None
    """Annotations to train on, in any format that `hero-plugin data convert` reads."""
    annotations_val: Path | None = None
    """Annotations that the best checkpoint is chosen on. Without them it is the last one."""
    annotations_reworded: Path | None = None
    """Rewordings of the val set (`hero-plugin vocab build`), for --choose-level alone."""
    annotations_test: tuple[str, ...] = ()
    """Annotations to score after each epoch, as PATH or NAME=PATH."""
    durations: Path | None = None
    """Lengths of the videos, for annotations that do not hold them (Charades-STA text)."""
    on_broken: OnBroken = "error"
    """Queries that cannot be used (outside their video, end before start): list them and stop, or leave them out."""
    features: tuple[Path, ...] = ()
    """A folder of VIDEO.npy, .npz or .pt, or an HDF5 file; several are joined along the feature axis."""
    words: Path | None = None
    """Word vectors: GloVe text, or .npz with the arrays words and vectors."""

    init_base: Path | None = None
    """Start from this base: best.pt of a run with --base-only, or a checkpoint of the authors' own code."""
    freeze_base: bool = False
    """Train the plug-in alone on it: the base learns nothing and drops nothing out."""

    base_only: bool = False
    """Train the plain base, without HERO."""
    paper: bool = False
    """Start from the literal paper (HeroConfig.paper()) instead of the measured defaults."""
    hero: HeroConfig = field(default_factory=HeroConfig)
    """HERO: every ablation is one of these flags."""

    choose_level: bool = False
    """At the end, let one level of HERO answer where all are no better on the val set and its rewordings: one pass of
    the base instead of several."""

    epochs: int = 20
    """How often each training query is seen; 0 takes the weights of ``init_base`` as they are, for ``eval``,
    ``predict`` and what else reads a run."""
    batch_size: int = 16
    """Queries a step; under torchrun, of all processes together."""
    lr: float = 5e-4
    """Learning rate at the start."""
    schedule: Schedule = "linear"
    """linear: the learning rate falls straight to 0. step: it drops to a tenth after every lr_drop epochs."""
    lr_drop: int = 400
    """Epochs between two drops; for the schedule step only."""
    warmup: float = 0.0
    """Share of the training during which the learning rate first rises from 0."""
    optimizer: OptimizerName = "adam"
    """adam: HERO's text. adamw: EMB's code, decay on weights and not on biases. adamw_all: the DETRs' code."""
    weight_decay: float = 0.01
    """For the kinds of adamw only."""
    clip_norm: float = 1.0
    """Longest gradient; longer ones are shortened to it."""
    seed: int = 0
    """Decides the weights at the start, the order of the queries, dropout, word masks and swaps."""
    swap_words: float = 0.0
    """Probability that a word of a training query gives way to a near word of the table --words that no training query
    has, drawn anew in each epoch; with HERO or without. Reads the whole table."""

    max_clips: int = 128
    """Longer videos are shortened to this many clips."""
    pooling: Literal["mean", "subsample"] = "mean"
    """How they are shortened."""
    tokenizer: Literal["words", "treebank"] = "words"
    """treebank splits contractions and keeps punctuation, as GloVe and EMB do."""

    device: str = "auto"
    """auto takes CUDA where there is one; under torchrun, each process its own GPU."""
    amp: Amp = "none"
    """Half precision in the forward pass; fp16 on CUDA only."""
    matmul: Literal["highest", "high"] = "highest"
    """high lets CUDA round matrix products to TF32: faster, about three digits."""
    threads: int = 0
    """CPU threads of each process; 0 leaves torch's choice. Bits depend on it, so a resumed run keeps it."""
    workers: int = 0
    """Processes that make batches ahead: where features stay on disk, or off the GPU."""
    storage: Storage = "auto"
    """Features in memory as float32 or float16, or read from disk each time; auto takes what fits."""
    memory: float = 4.0
    """Gigabytes that auto may fill with features."""
    features_on: Place = "auto"
    """Where features in memory wait: device, on the GPU; host, beside it; auto, on a GPU that has room for them."""
    eval_batch_size: int = 64
    """Queries scored at once, by each process."""
    eval_every: int = 1
    """Score after every so many epochs, and after the last."""
    checkpoint_steps: int = 0
    """Also save every so many steps; 0: do not."""
    checkpoint_seconds: float = 60.0
    """Also save every so many seconds; 0: do not."""

    compare: Path | None = None
    """Another run (the base, say) whose moments the query figures show as well."""
    figure_queries: int = 6
    """How many queries get a figure, from the last test set."""
    config: Path | None = None
    """Settings from a JSON or TOML file, under these names; flags given beside it win."""
    resume: bool = False
    """Continue the run in --output, with its settings."""
    overwrite: bool = False
    """Delete the run in --output and start again."""

    @property
    def clip_pooling(self) -> Pooling:
        """Return how a video of more clips is reduced: cut, where a clip's length is known and has to stay."""
        return "cut" if self.seconds_per_clip else self.pooling

    @property
    def seconds_per_clip(self) -> float:
        """Return the one length of all clips, in seconds; 0 where the clips of a video share its duration."""
        return 0.0

    @property
    def feature_paths(self) -> list[Path]:
        """Return the paths of the clip features; a run on data in memory, as the demo's, has none of its own."""
        if not self.features:
            raise ConfigError("--features is missing")
        return list(self.features)

    @property
    def word_table(self) -> Path:
        """Return the path of the word vectors, where the base reads a table of them."""
        if self.words is None:
            raise ConfigError("--words is missing")
        return self.words

    @property
    def model_name(self) -> str:
        """Return "EMB" or "HERO-EMB", say."""
        return self.title if self.base_only else f"HERO-{self.title}"

    def start(self: Config) -> Config | None:
        """Return what the flags start from if not from the recipe: the run to resume, a settings file, the paper.

        Raises:
            ConfigError: There is no telling which run, or the settings are not of this base; or flags are of HERO, and
                the base stays plain.
        """
        found = start = type(self)()
        if self.resume:
            if self.output is None:
                raise ConfigError("--resume needs --output: the folder of the run to continue")
            if (file := self.output / "config.json").is_file():
                found = start.updated(self.completed(read_settings(file)), str(file))
        if self.paper and not found.paper:  # before the file, whose single choices stand over it
            found = replace(found, paper=True, hero=HeroConfig.paper())
        if self.config is not None:
            found = found.updated(read_settings(self.config), str(self.config))
        given = [name for name, value in vars(self.hero).items() if value != getattr(start.hero, name)]
        if given and (self.base_only or found.base_only):
            said = ", ".join(f"--hero.{name.replace('_', '-')}" for name in given)
            raise ConfigError(f"--base-only trains the plain base, in which {said} has no part; leave one out")
        return None if found is start else found

    def updated(self: Config, settings: Mapping[str, Any], source: str) -> Config:
        """Return a copy with settings from JSON values.

        Raises:
            ConfigError: The settings are of another base, a field does not exist (with the nearest that does), or a
                value is of the wrong kind.
        """
        if (base := settings.get("base", self.base)) != self.base:
            raise ConfigError(f"{source}: these are settings of {base}, not of {self.base}")
        values = {
            name: value
            for name, value in settings.items()
            if name not in ("versions", "annotations", "base", "adapted")
        }
        paper = values.get("paper") and not self.paper
        return filled(replace(self, hero=HeroConfig.paper()) if paper else self, values, source)

    @classmethod
    def completed(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's settings, with the old behavior for those that did not exist when it was made."""
        usual = cls().to_json()  # what came later changes nothing by its default
        found = {**usual, **cls.earlier, **settings}
        # A DETR's scores were taken as they are; elsewhere the choice has no part, and is the default's.
        as_they_are = cls.ranks_clips and not found["base_only"]
        calibrate = not as_they_are and not found["paper"]
        found["hero"] = {**usual["hero"], "calibrate": calibrate, **settings.get("hero", {})}
        return found

    def reads_as(self, other: "TrainConfig") -> bool:
        """Return whether a query and its video are read by a run of the settings ``other`` as by one of these."""
        files = ("base", "features", "words", "query_features")
        same = all(getattr(self, name, None) == getattr(other, name, None) for name in files)
        return same and not self.fed_otherwise(other)

    def fed_otherwise(self, trained: "TrainConfig") -> list[str]:
        """Return in which settings a base is given something else here than in the run ``trained``, one text each."""
        pairs = [(name, getattr(self, name, None), getattr(trained, name, None)) for name in FEEDS_BASE]
        return [f"--{name.replace('_', '-')} {here}, there {there}" for name, here, there in pairs if here != there]

    def mistakes(self) -> list[str]:
        """Return what is missing or impossible, one line each."""
        wrong = self.missing()
        wrong += too_small(self, epochs=0, lr_drop=1, batch_size=1, eval_batch_size=1, eval_every=1, max_clips=1)
        wrong += too_small(self, weight_decay=0, threads=0, workers=0)
        for name in ("lr", "clip_norm", "memory"):
            if not getattr(self, name) > 0:
                wrong.append(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            wrong.append(f"--warmup must be in [0, 1), got {self.warmup}")
        if self.epochs == 0 and self.init_base is None:
            wrong.append("--epochs 0 takes the weights of --init-base as they are, which is not given")
        if self.freeze_base and self.init_base is None:
            wrong.append("--freeze-base needs --init-base: a base that was never trained would stay so")
        if self.freeze_base and (self.base_only or not self.hero.active):
            wrong.append("--freeze-base leaves nothing to train without HERO")
        if self.hero.levels_from == "input" and not (self.base_only or getattr(self, "query_features", None)):
            wrong.append("--hero.levels-from input reads --query-features of several layers, which the DETRs have")
        if self.choose_level and (self.annotations_val is None or self.base_only or self.hero.levels == 1):
            wrong.append("--choose-level needs --annotations-val to choose by, and several levels of HERO")
        if self.annotations_reworded is not None and not self.choose_level:
            wrong.append("--annotations-reworded is for --choose-level, which is not given")
        if not 0 <= self.swap_words <= 1:
            wrong.append(f"--swap-words is a probability from 0 to 1, got {self.swap_words}")
        if self.seed < 0:
            wrong.append(f"--seed must not be negative, got {self.seed}")
        names = [name for name, _ in self.test_sets()]
        if has_duplicates(names) or not {"train", "val", "reworded"}.isdisjoint(names):
            wrong.append(
                "--annotations-test needs different names, none of them train, val or reworded: got "
                f"{', '.join(names)}; give them as NAME=PATH"
            )
        return wrong

    def test_sets(self) -> list[tuple[str, Path]]:
        """Return (name, path) of each test set; the name is the file's where none is given."""
        return parse_named_paths(self.annotations_test)

    def to_json(self) -> dict[str, Any]:
        """Return the settings of the run, without what only says how to start it."""
        settings = asdict(self)
        for name in ("output", "config", "resume", "overwrite"):
            del settings[name]
        return {"base": self.base, **json.loads(json.dumps(settings, default=os.fspath))}


def has_duplicates(names: Sequence[str]) -> bool:
    """Return whether a name comes twice."""
    return len(set(names)) < len(names)


@dataclass(kw_only=True)
class RunInputs:
    """The flags of commands that take a finished run: the run, and what they read instead of its own inputs."""

    run: Path
    """Folder of the run."""
    features: tuple[Path, ...] = ()
    """Other features than the run's."""
    words: Path | None = None
    """Another copy of the word table than the run's (of the same vectors)."""
    query_features: Path | None = None
    """Another folder of queries' features than the run's (DETRs)."""
    durations: Path | None = None
    """Lengths of the videos, for queries that do not say them."""
    on_broken: OnBroken | None = None
    """Queries that cannot be used: error or drop; as in the run unless given."""
    device: str = "auto"
    """auto takes CUDA where there is one."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""


@dataclass(kw_only=True)
class AnswerInputs(RunInputs):
    """The flags of commands that let a finished run answer."""

    levels: tuple[int, ...] = ()
    """The levels of HERO that answer, from 0, instead of those that the run chose; one costs one pass of the base."""
    bridge: bool = False
    """Read words that training never had as mixtures of those that it had and that fit. Needs no training."""

    @property
    def how(self) -> str:
        """Return how the run answers otherwise than it was trained to, behind its name: " (level 1, bridge)", say."""
        levels = f"level{'s' if len(self.levels) > 1 else ''} {'+'.join(map(str, self.levels))}" if self.levels else ""
        said = [each for each in (levels, "bridge" if self.bridge else "") if each]
        return f" ({', '.join(said)})" if said else ""
