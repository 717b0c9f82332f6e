"""Rendering: from a video's action timeline to the features that an imperfect action recogniser might have seen.

An action looks like its prototype, one direction in feature space, half of it from the words that people use for it.
``TimelineConfig`` has every strength of the simulated perception's errors, ``Renderer`` applies them.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from hero_plugin.integrations.data import Record, WordVectors, tokenize
from hero_plugin.integrations.scoring.metrics import temporal_iou
from hero_plugin.integrations.support import DataError, Problem, Problems, files
from hero_plugin.integrations.support.errors import not_utf8


@dataclass(frozen=True)
class TimelineConfig:
    """Strengths of timeline features. Lengths are relative to an action's prototype, which has length 1.

    ``noise`` is the headline: it multiplies every error below it. 0 shows each action exactly as annotated.
    """

    dim: int = 256
    """Width of a clip's feature."""
    clips_per_second: float = 2.0
    """Clip rate; a Charades video of 30 s gets 60 clips."""
    max_clips: int = 128
    """Longer videos get this many, evenly spread (Charades: those over 64 s)."""
    semantic_share: float = 0.5
    """Share of a prototype's energy that comes from the words of training queries; the rest is random."""
    noise: float = 1.0
    """Multiplies all errors: miss and false-action rates, jitter, blur, and the lengths of the noise vectors."""
    miss_rate: float = 0.15
    """Probability that an annotated action is not seen at all."""
    false_rate: float = 0.75
    """Mean number of actions per video that are seen and are not there."""
    boundary_jitter: float = 1.0
    """Standard deviation, in seconds, of the error of each start and end."""
    boundary_blur: float = 0.75
    """Seconds over which an action fades in and out (scale of a logistic curve)."""
    strength_spread: float = 0.35
    """How unequally strongly actions are seen (standard deviation of the logarithm)."""
    appearance: float = 1.0
    """Length of what makes one video's instance of an action look unlike another's."""
    context: float = 0.3
    """Part of a video's mean action signal that shows in all its clips: the scene gives the actions away."""
    nuisance: float = 3.0
    """Length of the per-video vector: camera, room, light."""
    clip_noise: float = 4.5
    """Length of the noise of one clip."""
    noise_seconds: float = 1.5
    """How long clip noise lasts: its correlation falls to 1/e after this time."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("dim", "max_clips"):
                fits, expected = value >= 1, "1 or more"
            elif name in ("semantic_share", "miss_rate"):
                fits, expected = 0 <= value <= 1, "between 0 and 1"
            elif name == "clips_per_second":
                fits, expected = value > 0, "positive"
            else:
                fits, expected = 0 <= value < float("inf"), "0 or more"
            if not fits:
                raise ValueError(f"{name} must be {expected}, got {value}")

    def clips(self, duration: float) -> int:
        """Return the number of clips of a video of ``duration`` seconds."""
        return max(1, min(self.max_clips, round(duration * self.clips_per_second)))

    def scale(self) -> float:
        """Return what features are multiplied by, so that their numbers are about 1 whatever the noise."""
        energy = 1 + self.noise**2 * (self.appearance**2 + self.nuisance**2 + self.clip_noise**2)
        return float((self.dim / energy) ** 0.5)


DEFAULT = TimelineConfig()


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator that (seed, names) stands for: same arguments, same numbers, on every machine.

    Each name has a stream of its own, whatever else is drawn, in whatever order.
    """
    digest = hashlib.blake2b("\0".join(names).encode("utf-8"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int.from_bytes(digest, "little")])))


CLASSES = 157
"""Charades' actions."""
SAME_VIDEOS = "give annotations of the same videos as the timelines"
"""How to correct queries without timelines."""


@dataclass(frozen=True)
class Timeline:
    """The annotated actions of one video: action ``classes[i]`` lasts from ``starts[i]`` to ``ends[i]`` (seconds)."""

    video_id: str
    duration: float
    classes: np.ndarray  # (A,) int64
    starts: np.ndarray  # (A,) float64
    ends: np.ndarray  # (A,) float64

    def overlaps(self, start: float, end: float) -> np.ndarray:
        """Return the temporal IoU (A,) of each action with a moment."""
        return temporal_iou(np.stack([self.starts, self.ends], axis=-1), np.array([start, end]))


def load_timelines(path: str | os.PathLike[str]) -> dict[str, Timeline]:
    """Read ``{VIDEO: {"duration": seconds, "actions": [[class, start, end], ...]}}``.

    Actions that end after the video are cut at its end (30 in 100 do, by up to 1.5 s); those that have no length
    then are left out (12 of 66,500 in Charades).

    Raises:
        FileNotFoundError: There is no such file.
        DataError: Every bad entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no action timelines at {path}")
    try:
        entries = TypeAdapter(dict[str, _Entry]).validate_json(path.read_text(encoding="utf-8-sig"), strict=True)
    except UnicodeDecodeError as error:
        raise DataError([_problem(path, (), not_utf8(error))]) from error
    except ValidationError as error:
        wrong = [(each["loc"], f"{each['msg']}, got {each['input']!r:.60}") for each in error.errors()]
        raise DataError(_problem(path, place, what) for place, what in wrong) from error
    if not entries:
        raise DataError([_problem(path, (), "no videos")])
    return {video: _timeline(video, entry) for video, entry in entries.items()}


_Seconds = Annotated[float, Field(allow_inf_nan=False)]


class _Entry(BaseModel):
    """A video in a file of timelines."""

    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    actions: list[tuple[Annotated[float, Field(ge=0, lt=CLASSES, multiple_of=1)], _Seconds, _Seconds]]


def _problem(path: Path, place: tuple[int | str, ...], what: str) -> Problem:
    if not place:
        fix = "is this Charades' action timelines file, and whole?"
        return Problem(str(path), f"expected {{VIDEO: {{duration, actions: [[class, start, end], ...]}}}}: {what}", fix)
    video, *field = map(str, place)
    return Problem(f"{path}: video {video}", " ".join([*field, what]), "correct or remove the entry")


def _timeline(video: str, entry: _Entry) -> Timeline:
    table = np.array(entry.actions, dtype=np.float64).reshape(-1, 3)
    starts, ends = np.clip(table[:, 1], 0, entry.duration), np.clip(table[:, 2], 0, entry.duration)
    seen = ends > starts
    return Timeline(video, entry.duration, table[seen, 0].astype(np.int64), starts[seen], ends[seen])


# Words that say nothing about the action. Particles (on, off, up, down, out) stay: they are half of many verbs.
_EMPTY_TEXT = """
a an the this that these those some their his her its they he she it them him person people man woman guy girl boy
another other someone somebody one two and or while then as is are was were be been being has have had do does did
begins begin began starts start started starting beginning continues in at of to with for from into by who which
there person's different next
"""
_EMPTY = frozenset(_EMPTY_TEXT.split())


@dataclass(frozen=True)
class Prototypes:
    """Directions of the actions in feature space.

    Attributes:
        vectors: float32 (157, dim), length 1.
        queries: (157,) training queries that describe each action.
        labels: The most telling words of each action's queries ("" where there are none), for figures.
        center: The mean word vector over actions, from which meanings are measured.
    """

    vectors: np.ndarray
    queries: np.ndarray
    labels: tuple[str, ...]
    center: np.ndarray

    def checksum(self) -> str:
        """Return what identifies these prototypes: equal on any machine up to five decimals."""
        return hashlib.sha256(np.round(self.vectors, 5).astype("<f4").tobytes()).hexdigest()[:16]


def build_prototypes(
    records: Iterable[Record],
    timelines: Mapping[str, Timeline],
    words: WordVectors,
    config: TimelineConfig = DEFAULT,
    *,
    seed: int = 0,
) -> Prototypes:
    """Return one prototype per action, from training queries only.

    Each query belongs to the action of its video that its moment overlaps best (equally well: to each in part). An
    action's semantic half is the mean vector of its queries' content words, minus the mean over actions, through a
    fixed random projection to ``config.dim``; the other half is a random direction. An action that no query describes
    is random altogether. Raises ``DataError`` where records name videos without a timeline, or no query has a content
    word with a vector.
    """
    sums, weights = np.zeros((CLASSES, words.dim)), np.zeros(CLASSES)
    counts: list[Counter[str]] = [Counter() for _ in range(CLASSES)]
    problems, missing = Problems(), set[str]()
    for record in records:
        timeline = timelines.get(record.video_id)
        if timeline is None:
            if record.video_id not in missing:
                problems.add(f"video {record.video_id}", "has queries and no timeline", SAME_VIDEOS)
            missing.add(record.video_id)
            continue
        content = content_words(record.sentence, words)
        overlaps = timeline.overlaps(*record.moments[0]) if content and record.moments else np.zeros(0)
        if not overlaps.any():
            continue
        best = np.unique(timeline.classes[overlaps >= overlaps.max() - 1e-6])
        for action in best:
            sums[action] += mean_vector(content, words) / len(best)
            weights[action] += 1 / len(best)
            counts[action].update(content)
    if not weights.any() and not problems:
        problems.add("timeline prototypes", "no training query has a content word with a vector", "check --words")
    problems.raise_if_any()
    known = weights > 0
    means = sums / np.maximum(weights, 1e-12)[:, None]
    center = means[known].mean(axis=0)
    random = generator(seed, "prototypes").standard_normal((CLASSES, config.dim))
    vectors = look(means - center, known, random, config, seed)
    return Prototypes(vectors, weights.round(2), _labels(counts), center)


def content_words(sentence: str, words: WordVectors) -> list[str]:
    """Return the words of a sentence that say something about the action and have a vector."""
    return [word for word in tokenize(sentence) if word not in _EMPTY and word in words]


def mean_vector(content: list[str], words: WordVectors) -> np.ndarray:
    """Return the mean (words' dim,) of the vectors of words."""
    return np.mean([words.vectors[words.index[word]] for word in content], axis=0)


def look(meanings: np.ndarray, known: np.ndarray, random: np.ndarray, config: TimelineConfig, seed: int) -> np.ndarray:
    """Return what things look like, float32 (things, dim) of length 1: in part as they mean, in part at random.

    ``meanings`` are (things, words' dim) less the center, ``known`` (things,) says which of them there are, and
    ``random`` (things, dim) are directions.
    """
    project = generator(seed, "projection").standard_normal((meanings.shape[1], config.dim))
    semantic = np.where(known[:, None], meanings @ project, 0.0)
    share = np.where(known, config.semantic_share, 0.0)[:, None]
    vectors = np.sqrt(share) * _unit(semantic) + np.sqrt(1 - share) * _unit(random)
    return _unit(vectors).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _labels(counts: list[Counter[str]]) -> tuple[str, ...]:
    """Return, per action, two words that its queries use more than the others' do."""
    total = sum(counts, Counter[str]())
    everything = max(total.total(), 1)
    labels = []
    for count in counts:
        mine = max(count.total(), 1)
        telling = {word: n * np.log(n * everything / (mine * total[word])) for word, n in count.items()}
        labels.append(" ".join(sorted(telling, key=lambda word: (-telling[word], word))[:2]))
    return tuple(labels)


@dataclass(frozen=True)
class Renderer:
    """Simulated perception, which renders videos.

    The random draws do not depend on the strengths, so that two settings of ``config.noise`` show the same video, more
    and less clearly.
    """

    prototypes: Prototypes
    config: TimelineConfig = DEFAULT
    seed: int = 0

    def __post_init__(self) -> None:
        if (dim := self.prototypes.vectors.shape[1]) != self.config.dim:
            raise ValueError(f"the prototypes are {dim} wide, config.dim is {self.config.dim}: build them anew")

    def __call__(self, timeline: Timeline) -> np.ndarray:
        """Return the features of one video, float32 (clips, dim), which depend on it and on this renderer alone.

        A clip is the sum of the prototypes of the actions seen in it, each a little different in every video and
        faded in and out around misjudged boundaries; plus a part of the video's mean signal, a vector of the
        video's own, and noise that changes slowly.
        """
        config = self.config
        clips, dim, noise = config.clips(timeline.duration), config.dim, config.noise
        classes, starts, ends, strength = self._seen(timeline, self._draw(timeline, "actions"))
        looks = self.prototypes.vectors[classes]
        if len(classes):
            own = self._draw(timeline, "looks").standard_normal((len(classes), dim), dtype=np.float32)
            looks = looks + own * np.float32(noise * config.appearance / dim**0.5)
        times = (np.arange(clips) + 0.5) * (timeline.duration / clips)
        blur = max(noise * config.boundary_blur, 1e-6)
        rise = _logistic((times[:, None] - starts) / blur)
        shown = rise * _logistic((ends - times[:, None]) / blur) * strength  # (clips, actions)
        features = shown.astype(np.float32) @ looks
        features += np.float32(noise * config.context) * features.mean(axis=0)
        nuisance = self._draw(timeline, "nuisance").standard_normal(dim, dtype=np.float32)
        features += nuisance * np.float32(noise * config.nuisance / dim**0.5)
        wander = self._draw(timeline, "clips").standard_normal((clips, dim), dtype=np.float32)
        features += _slow(wander, timeline.duration / clips, config) * np.float32(noise * config.clip_noise / dim**0.5)
        return features * np.float32(config.scale())

    def _draw(self, timeline: Timeline, what: str) -> np.random.Generator:
        return generator(self.seed, timeline.video_id, what)

    def _seen(
        self, timeline: Timeline, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return classes, starts, ends and strengths of the actions that are seen, true ones and false ones."""
        config, kinds = self.config, len(self.prototypes.vectors)
        count, duration, noise = len(timeline.classes), timeline.duration, config.noise
        chance, errors, levels = rng.random(count), rng.standard_normal((2, count)), rng.standard_normal(count)
        kept = chance >= 1 - (1 - config.miss_rate) ** noise
        jitter = errors * (noise * config.boundary_jitter)
        starts, ends = timeline.starts + jitter[0], timeline.ends + jitter[1]
        swapped = ends <= starts  # jitter as long as the action itself
        middle = (timeline.starts + timeline.ends) / 2
        starts, ends = np.where(swapped, middle - 0.25, starts), np.where(swapped, middle + 0.25, ends)
        # False actions: a Poisson number of them, drawn by comparing fixed draws with the rate.
        gaps = np.cumsum(rng.standard_exponential(16))
        false = int((gaps < noise * config.false_rate).sum())
        false_classes = rng.integers(0, kinds, 16)[:false]
        begins, lengths = rng.random(16)[:false] * duration, (0.1 + 0.4 * rng.random(16)[:false]) * duration
        false_starts = np.maximum(begins - lengths / 2, 0)
        strengths = np.exp(
            noise * config.strength_spread * np.concatenate([levels[kept], rng.standard_normal(16)[:false]])
        )
        return (
            np.concatenate([timeline.classes[kept], false_classes]),
            np.concatenate([starts[kept], false_starts]),
            np.concatenate([ends[kept], np.minimum(begins + lengths / 2, duration)]),
            strengths,
        )


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def _slow(white: np.ndarray, seconds_per_clip: float, config: TimelineConfig) -> np.ndarray:
    """Make white noise (clips, dim) last, by an autoregression of order one, its size unchanged."""
    if config.noise_seconds <= 0:
        return white
    memory = np.float32(np.exp(-seconds_per_clip / config.noise_seconds))
    fresh = np.float32((1 - float(memory) ** 2) ** 0.5)
    for clip in range(1, len(white)):
        white[clip] *= fresh
        white[clip] += memory * white[clip - 1]
    return white


# A folder of ``VIDEO.npy``, as real features come in.

MANIFEST = "manifest.json"
_LAYOUT = 1  # of the rendering: raised whenever the same settings would give other numbers


class Rendered(NamedTuple):
    """Videos rendered, videos that were there already, and the clips of all of them."""

    written: int
    skipped: int
    clips: int


def render_folder(
    output: str | os.PathLike[str],
    timelines: Mapping[str, Timeline],
    renderer: Renderer,
    *,
    videos: Iterable[str] | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    resume: bool = False,
    what: str = "simulated clip features rendered from human action timelines",
    sources: Mapping[str, Any] | None = None,
    progress: files.OnProgress | None = None,
) -> Rendered:
    """Write ``VIDEO.npy`` (clips, dim) of some or all videos, and ``manifest.json``, into the folder ``output``.

    It may be stopped at any moment and never leaves a partial file; ``resume=True`` then goes on with what is missing,
    provided that the timelines and the settings are the same. ``what`` and ``sources`` are noted in the manifest, and
    ``progress`` is called as progress(videos done, videos in all). Raises ``DataError`` where the folder holds
    something else, a video has no timeline, or its name is not that of a file.
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f'dtype must be "float16" or "float32", got {dtype!r}')
    output = Path(output)
    names = sorted(timelines if videos is None else set(videos))
    unknown = [name for name in names if name not in timelines]
    if unknown:
        raise DataError(Problem(f"video {name}", "has no timeline", SAME_VIDEOS) for name in unknown)
    # A name with a folder in it would be written outside the output.
    outside = [name for name in names if Path(name).name != name or "\\" in name or "\0" in name]
    if outside:
        fix = "rename it in the annotations and the timelines"
        raise DataError(Problem(f"video {name!r}", "is not the name of a file", fix) for name in outside)
    settings = {
        "what": what,
        "layout": _LAYOUT,
        "seed": renderer.seed,
        "dtype": dtype,
        "config": asdict(renderer.config),
        "prototypes": renderer.prototypes.checksum(),
        "timelines": _checksum(timelines),
    }
    _check_folder(output, settings, resume)
    output.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(output)
    notes = {"videos": len(names), "numpy": np.__version__, **({"sources": dict(sources)} if sources else {})}
    files.write_json(output / MANIFEST, {**settings, **notes, "complete": False})
    written = skipped = clips = 0
    config = renderer.config
    for done, name in enumerate(names, 1):
        file, shape = output / f"{name}.npy", (config.clips(timelines[name].duration), config.dim)
        if resume and _is_complete(file, shape, dtype):
            skipped += 1
        else:
            array = renderer(timelines[name]).astype(dtype)
            with files.atomic_write(file, "wb", durable=False) as stream:
                np.save(stream, array)
            written += 1
        clips += shape[0]
        if progress is not None:
            progress(done, len(names))
    files.write_json(output / MANIFEST, {**settings, **notes, "clips": clips, "complete": True})
    return Rendered(written, skipped, clips)


def _checksum(timelines: Mapping[str, Timeline]) -> str:
    found = hashlib.sha256()
    for video, timeline in sorted(timelines.items()):
        found.update(f"{video}\0{timeline.duration!r}\0{len(timeline.classes)}\0".encode())
        found.update(np.stack([timeline.classes, timeline.starts, timeline.ends]).astype("<f8").tobytes())
    return found.hexdigest()[:16]


def _check_folder(output: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Raise ``DataError`` unless the folder is new or holds features of the same settings: nothing is overwritten."""
    manifest, another = output / MANIFEST, "name another folder"
    if output.exists() and not output.is_dir():
        raise DataError([Problem(str(output), "is a file", "name a folder")])
    if not manifest.exists():
        if any(output.glob("*.np[yz]")):
            raise DataError([Problem(str(output), "holds features that were not rendered here", another)])
        return
    if not resume:
        fix = f"add --resume to go on with it, or {another}"
        raise DataError([Problem(str(output), "holds timeline features already", fix)])
    try:
        # Folders of earlier versions do not say which timelines they were rendered from.
        before = {"timelines": settings["timelines"], **json.loads(manifest.read_text(encoding="utf-8"))}
        config_before = before.get("config") or {}
    except (ValueError, TypeError) as error:
        raise DataError([Problem(str(manifest), f"not JSON of timeline features ({error})", another)]) from error
    different = [key for key in settings if key != "config" and before.get(key) != settings[key]]
    different += [key for key, value in settings["config"].items() if config_before.get(key) != value]
    if different:
        what = f"was rendered with other settings: {', '.join(different)}"
        raise DataError([Problem(str(output), what, f"{another}, or repeat the settings in its manifest.json")])


def _is_complete(file: Path, shape: tuple[int, int], dtype: str) -> bool:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.dtype(dtype)
