"""Every flag of ``hero-plugin train emb``: one dataclass, which a JSON or TOML file can fill as well."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hero_plugin import HeroConfig
from hero_plugin.adapters.emb import EMBConfig
from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.engine import Recipe
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.feature_bank import Storage
from hero_plugin.integrations.optimizers import OptimizerName
from hero_plugin.integrations.precision import Amp


class ConfigError(UserError):
    """Settings that cannot be used; the message names the flags."""


@dataclass
class TrainConfig:
    """Train EMB, plain or with HERO. Defaults are the paper's recipe."""

    output: Path | None = None
    """The run's folder: settings, log, checkpoints, TensorBoard events and figures."""
    annotations_train: Path | None = None
    """Annotations to train on, in any format that `hero-plugin data convert` reads."""
    annotations_val: Path | None = None
    """Annotations that the best checkpoint is chosen on. Without them it is the last one."""
    annotations_test: tuple[str, ...] = ()
    """Annotations to score after each epoch, as PATH or NAME=PATH."""
    durations: Path | None = None
    """Lengths of the videos, for annotations that do not hold them (Charades-STA text)."""
    on_broken: OnBroken = "error"
    """Queries that cannot be used (outside their video, end before start): list them and stop, or leave them out."""
    features: tuple[Path, ...] = ()
    """A folder of VIDEO.npy or .npz, or an HDF5 file; several are joined along the feature axis."""
    words: Path | None = None
    """Word vectors: GloVe text, or .npz with the arrays words and vectors."""

    base_only: bool = False
    """Train plain EMB, without HERO."""
    paper: bool = False
    """Start from the literal paper (HeroConfig.paper()) instead of the measured defaults."""
    hero: HeroConfig = field(default_factory=HeroConfig)
    """HERO: every ablation is one of these flags."""

    epochs: int = 20
    """How often each training query is seen."""
    batch_size: int = 16
    """Queries a step."""
    lr: float = 5e-4
    """Learning rate at the start; it falls linearly to 0."""
    warmup: float = 0.0
    """Share of the training during which the learning rate first rises from 0."""
    optimizer: OptimizerName = "adam"
    """adam: the paper's text. adamw: what EMB's code does, with weight decay."""
    weight_decay: float = 0.01
    """For adamw only."""
    clip_norm: float = 1.0
    """Longest gradient; longer ones are shortened to it."""
    seed: int = 0
    """Decides the weights at the start, the order of the queries, dropout and word masks."""

    dim: int = 128
    """Hidden size D."""
    drop_rate: float = 0.2
    """Dropout in EMB."""
    max_clips: int = 128
    """Longer videos are shortened to this many clips."""
    pooling: Literal["mean", "subsample"] = "mean"
    """How they are shortened."""
    tokenizer: Literal["words", "treebank"] = "words"
    """treebank splits contractions and keeps punctuation, as GloVe and EMB do."""
    word_norm: float = 5.5
    """Scale the word vectors to this mean length (GloVe's own, which the recipe is made for); 0: leave them."""
    highlight_lambda: float = 5.0
    """Weight of EMB's highlight loss."""
    rank_lambda: float = 1.0
    """Weight of EMB's proposal ranking loss."""
    extend: float = 0.1
    """Share of its length that a moment grows by, at each end, for EMB's highlight labels."""

    device: str = "auto"
    """auto takes CUDA where there is one."""
    amp: Amp = "none"
    """Half precision in the forward pass; fp16 on CUDA only."""
    matmul: Literal["highest", "high"] = "highest"
    """high lets CUDA round matrix products to TF32: faster, about three digits."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice. Bits depend on it, so a resumed run keeps it."""
    workers: int = 0
    """Processes that make batches; worth it only where features stay on disk."""
    storage: Storage = "auto"
    """Features in memory as float32 or float16, or read from disk each time; auto takes what fits."""
    memory: float = 4.0
    """Gigabytes that auto may fill with features."""
    eval_batch_size: int = 64
    """Queries scored at once."""
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

    def checked(self) -> TrainConfig:
        """This config with absolute paths, once nothing is missing or impossible.

        Raises:
            ConfigError: all that is wrong, by flag.
        """
        wrong = [
            f"--{name.replace('_', '-')} is missing"
            for name in ("output", "annotations_train", "features", "words")
            if not getattr(self, name)
        ]
        for name in ("epochs", "batch_size", "eval_batch_size", "eval_every", "max_clips"):
            if getattr(self, name) < 1:
                wrong.append(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "clip_norm", "memory"):
            if not getattr(self, name) > 0:
                wrong.append(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            wrong.append(f"--warmup must be in [0, 1), got {self.warmup}")
        if self.seed < 0:
            wrong.append(f"--seed must not be negative, got {self.seed}")
        names = [name for name, _ in self.test_sets()]
        if len(set(names)) < len(names) or "val" in names:
            wrong.append(
                f"--annotations-test needs different names, none of them val: got {', '.join(names)}; "
                "give them as NAME=PATH"
            )
        for path in self._inputs():
            if not path.exists():
                wrong.append(f"{path}: no such file or folder")
        if wrong:
            raise ConfigError("\n".join(wrong))
        return replace(
            self,
            output=_absolute(self.output),
            annotations_train=_absolute(self.annotations_train),
            annotations_val=_absolute(self.annotations_val),
            annotations_test=tuple(f"{name}={_absolute(path)}" for name, path in self.test_sets()),
            durations=_absolute(self.durations),
            features=tuple(_absolute(path) for path in self.features),
            words=_absolute(self.words),
            compare=_absolute(self.compare),
        )

    def test_sets(self) -> list[tuple[str, Path]]:
        """(name, path) of each test set; the name is the file's where none is given."""
        pairs = []
        for text in self.annotations_test:
            name, equals, path = text.partition("=")
            pairs.append((name, Path(path)) if equals else (Path(text).stem, Path(text)))
        return pairs

    def recipe(self) -> Recipe:
        return Recipe(**{each.name: getattr(self, each.name) for each in fields(Recipe)})

    def emb(self, video_dim: int, word_dim: int) -> EMBConfig:
        return EMBConfig(
            word_dim=word_dim,
            video_feature_dim=video_dim,
            max_pos_len=max(128, self.max_clips),
            dim=self.dim,
            drop_rate=self.drop_rate,
            highlight_lambda=self.highlight_lambda,
            rank_lambda=self.rank_lambda,
            extend=self.extend,
        )

    def to_json(self) -> dict[str, Any]:
        """The settings of the run, without what only says how to start it."""
        settings = asdict(self)
        for name in ("output", "config", "resume", "overwrite"):
            del settings[name]
        return json.loads(json.dumps(settings, default=os.fspath))

    def _inputs(self) -> list[Path]:
        given = [self.annotations_train, self.annotations_val, self.durations, self.words, self.compare]
        return [path for path in (*given, *self.features, *(p for _, p in self.test_sets())) if path]


def config_from(settings: Mapping[str, Any], source: str, start: TrainConfig | None = None) -> TrainConfig:
    """A config from JSON values, over ``start``.

    Raises:
        ConfigError: a field that does not exist (with the nearest that does), or a value of the wrong kind.
    """
    start = start or TrainConfig()
    values = {name: value for name, value in settings.items() if name != "versions"}
    if values.get("paper") and not start.paper:
        start = replace(start, hero=HeroConfig.paper())
    return _filled(start, values, source, "")


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON or (from Python 3.11 on) TOML file as a dict."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if path.suffix != ".toml":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    try:
        import tomllib
    except ImportError as error:
        raise ConfigError(f"{path}: TOML needs Python 3.11; write the same settings as JSON") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error


def _filled(start: Any, values: Mapping[str, Any], source: str, prefix: str) -> Any:
    known = {each.name: each for each in fields(start)}
    changes = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise ConfigError(f"{source}: no setting {prefix + name!r}{hint}")
        now = getattr(start, name)
        if is_dataclass(now):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {prefix + name} must be a table of settings, got {value!r}")
            value = _filled(now, value, source, f"{prefix}{name}.")
        else:
            value = _converted(value, now, known[name].type, f"{source}: {prefix}{name}")
        changes[name] = value
    try:
        return replace(start, **changes)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error


def _converted(value: Any, now: Any, kind: str, where: str) -> Any:
    """JSON has neither paths nor tuples, and writes 1 for 1.0."""
    if value is None:
        if "None" not in kind:
            raise ConfigError(f"{where} must not be null")
        return None
    if kind.startswith("tuple"):
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
            raise ConfigError(f"{where} must be a list of paths, got {value!r}")
        return tuple(Path(each) if "Path" in kind else each for each in values)
    if kind.startswith("Path"):
        if not isinstance(value, str):
            raise ConfigError(f"{where} must be a path, got {value!r}")
        return Path(value)
    if isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if now is not None and type(value) is not type(now):
        raise ConfigError(f"{where} must be {type(now).__name__}, got {value!r}")
    return value


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path.expanduser()))
