"""Questions to video files: a trained run, and the encoders that made its features, as one object."""

import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from hero_plugin.integrations.data import Record, Vocabulary, load_word_vectors, tokenize
from hero_plugin.integrations.data.feature_bank import ArrayBank, describe_manifest, manifest_difference
from hero_plugin.integrations.data.features import MemoryFeatures, unit_length
from hero_plugin.integrations.data.records import clean_sentence
from hero_plugin.integrations.scoring.metrics import temporal_iou
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.support.files import atomic_write
from hero_plugin.integrations.tools.video.encoders import TextEncoder, load_encoder
from hero_plugin.integrations.tools.video.extract import Encoded, Extractor
from hero_plugin.integrations.training.distributed import Amp, choose_device
from hero_plugin.integrations.training.load_run import RunPredictor
from hero_plugin.integrations.training.queries import BridgedWords, Queries
from hero_plugin.integrations.training.run_folder import RunFolder

SAME = 0.5
"""Of moments from several windows that overlap by more than this IoU, the one with the best score stays."""
BATCH = 64
"""Queries answered at once."""


class Moment(NamedTuple):
    """A stretch of a video, in seconds, and the model's score of it."""

    start: float
    end: float
    score: float


class Answer(NamedTuple):
    """What a run says to one query about one video."""

    moments: list[Moment]
    """Best first."""
    relevance: np.ndarray
    """(clips,) in [0, 1]."""


@dataclass(frozen=True)
class VideoFeatures:
    """A video as the run's model reads it."""

    path: Path
    features: np.ndarray
    """(clips, width) float32."""
    duration: float
    """Seconds."""
    clip_seconds: float
    shortfall: str = ""
    """What was missing of the file, "" if nothing was."""


def windows_of(clips: int, longest: int) -> list[range]:
    """Return the windows of a video: all of it, or stretches of ``longest`` clips that overlap by half or more."""
    if clips <= longest:
        return [range(clips)]
    starts = [*range(0, clips - longest, max(1, longest // 2)), clips - longest]
    return [range(start, start + longest) for start in starts]


def merged(found: Iterable[Moment]) -> list[Moment]:
    """Return moments of several windows, best first, without those that a better one overlaps."""
    kept: list[Moment] = []
    for moment in sorted(found, key=lambda each: -each.score):
        if all(temporal_iou(moment[:2], other[:2]) <= SAME for other in kept):
            kept.append(moment)
    return kept


class EncodedQueries(Queries):
    """Queries as the run's text encoder makes them, for a base that was trained on a file of vectors for each."""

    def __init__(self, encoder: TextEncoder, max_words: int, normalize: bool) -> None:
        self.encoder, self.max_words, self.normalize = encoder, max_words, normalize
        self.dim = encoder.encode_text(["a"])[0][0].shape[1]

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (B, L, dim) float32 with zeros for padding, and their mask (B, L) bool."""
        found = [words[: self.max_words] for words, _ in self.encoder.encode_text([each.sentence for each in records])]
        rows = [unit_length(words) if self.normalize else words for words in found]
        bank = ArrayBank({str(place): row for place, row in enumerate(rows)}, self.dim)
        return bank.batch(range(len(rows)))


class VideoGrounder:
    """A run that answers questions about video files.

    Args:
        run: Folder of the run.
        checkpoint: best or last.
        levels: As in ``hero-plugin eval``.
        bridge: Likewise.
        device: auto takes CUDA where there is one.
        amp: Half precision of the encoders.
        cache: Where the features of videos are kept, a folder in your home unless given; None keeps none.
        encoders: Where the encoders of the run's features lie now, in their order, if they have moved.
        download: Whether encoders may be downloaded.

    Attributes:
        videos: The videos that were added, by name; a question without a video is about the last.

    Raises:
        UserError: The run was trained on features that no encoder is known to make.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        checkpoint: str = "best",
        levels: Sequence[int] = (),
        bridge: bool = False,
        device: str = "auto",
        amp: Amp = "none",
        cache: Path | str | None = "",
        encoders: Sequence[str] = (),
        download: bool = False,
    ) -> None:
        if checkpoint not in ("best", "last"):
            raise UserError(f"the checkpoint must be best or last, got {checkpoint!r}")
        if cache == "":
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hero-plugin" / "videos"
        self.run, self.device = RunFolder.open(Path(run)), choose_device(device)
        self.checkpoint, self.levels, self.bridge = checkpoint, tuple(levels), bridge
        self.amp, self.encoders, self.download = amp, tuple(encoders), download
        self.cache = None if cache is None else Path(cache)
        self.videos: dict[str, VideoFeatures] = {}
        self._words: frozenset[str] = frozenset()
        self._predictor: RunPredictor | None = None
        self._loaded: dict[tuple[str, str | None, tuple[int, ...] | None], Any] = {}
        self._check()

    @classmethod
    def from_run(cls, run: str | os.PathLike[str], **options: Any) -> "VideoGrounder":
        """Open a run; the same as ``VideoGrounder(run, ...)``."""
        return cls(run, **options)

    @cached_property
    def settings(self) -> Any:
        """The run's settings."""
        return self.run.settings()

    @cached_property
    def origins(self) -> Mapping[str, Any]:
        """What made the features that the run was trained on."""
        return self.run.origins()

    @property
    def weights(self) -> Path:
        """The checkpoint that answers."""
        return self.run.best if self.checkpoint == "best" else self.run.last

    def _check(self) -> None:
        if not self.weights.is_file():
            raise UserError(f"{self.weights}: no such checkpoint; is this the folder of a run that has trained?")
        sources = self.origins.get("features") or []
        unknown = [str(path) for path, each in zip(self.settings.features, sources, strict=False) if each is None]
        if not sources or unknown:
            where = ", ".join(unknown or map(str, self.settings.features)) or "data in memory"
            raise UserError(
                f"{self.run.path}: trained on features of {where}, which no encoder is known to make (no manifest.json "
                "beside them); extract features by hero-plugin data extract and train on those, or answer feature "
                "files by hero-plugin predict"
            )
        if getattr(self.settings, "query_features", None) and self.origins.get("query_features") is None:
            raise UserError(
                f"{self.run.path}: trained on queries' features that no encoder is known to make; extract them by "
                "hero-plugin data extract --queries and train on those"
            )
        if len({each["clip_seconds"] for each in sources}) > 1:
            raise UserError(f"{self.run.path}: trained on features of several clip lengths")

    @cached_property
    def _extractors(self) -> list[Extractor]:
        """One per folder of features."""
        names, found = iter(self.encoders), []
        for manifest in self.origins["features"]:
            encoders = [self._encoder(each, next(names, each["name"])) for each in manifest["encoders"]]
            rates = [each["frames_per_second"] for each in manifest["encoders"]]
            extractor = Extractor(encoders, manifest["clip_seconds"], rates)
            if differs := manifest_difference(manifest, extractor.manifest()):
                raise UserError(f"{self.run.path}: the encoder is {differs}, which the run was trained on")
            found.append(extractor)
        return found

    def _encoder(self, identity: Mapping[str, Any], name: str, layers: tuple[int, ...] | None = None) -> Any:
        """Load an encoder once: of frames, or of texts if ``layers`` says which of its layers they are to have."""
        weights = identity.get("weights")
        if (key := (name, weights, layers)) in self._loaded:
            return self._loaded[key]
        load = load_encoder if layers is None else partial(TextEncoder, layers=layers)
        try:
            found: Any = load(name, self.device, self.amp, download=self.download)
            # Of a function nothing is known but its name, which is compared later, as all else is.
            if weights is not None and weights != getattr(found, "weights", weights):
                what = f"{found.name}: has weights {found.weights}, expected {weights}"
                raise UserError(f"{what}: another model, or fine-tuned since")
        except UserError as error:
            raise UserError(f"{error}\n(the encoder of the features that {self.run.path} was trained on)") from error
        self._loaded[key] = found
        return found

    def _text_encoder(self, manifest: Mapping[str, Any]) -> TextEncoder:
        [identity] = manifest["encoders"]
        layers = tuple(identity.get("layers", ()))
        for (_, weights, _), loaded in self._loaded.items():
            if weights == identity["weights"] and getattr(loaded, "layers", None) == layers:
                return loaded
        known = [each for source in self.origins["features"] for each in source["encoders"]]
        same = [place for place, each in enumerate(known) if each.get("weights") == identity["weights"]]
        moved = self.encoders[same[0]] if same and same[0] < len(self.encoders) else identity["name"]
        return self._encoder(identity, moved, layers)

    def add(self, path: str | os.PathLike[str], name: str = "") -> VideoFeatures:
        """Encode a video, or take its features from the cache. It is called by its file's name unless given another.

        Raises:
            DataError: The file cannot be read as a video.
            FileNotFoundError: There is none.
            UserError: Another video has its name.
        """
        file = Path(path)
        name = name or file.stem
        if not file.is_file():
            raise FileNotFoundError(f"no video at {file}")
        if name in self.videos and self.videos[name].path.resolve() != file.resolve():
            raise UserError(
                f"{file}: is called {name!r} like {self.videos[name].path}; give it another name: add(path, name)"
            )
        sources = self.origins["features"]
        parts = [self._encoded(file, place) for place in range(len(sources))]
        unit = bool(getattr(self.settings, "normalize_features", False))
        clips = min(len(each.features) for each in parts)
        rows = [unit_length(each.features[:clips]) if unit else each.features[:clips] for each in parts]
        whole = np.concatenate(rows, axis=1)
        self.videos.pop(name, None)  # the last one added stands last
        self.videos[name] = VideoFeatures(
            file, whole, parts[0].duration, float(sources[0]["clip_seconds"]), parts[0].shortfall
        )
        return self.videos[name]

    def _encoded(self, path: Path, place: int) -> Encoded:
        """Return a video's features of the run's folder in a place, from the cache if it has them."""
        if self.cache is None:
            return self._extractors[place].extract_one(path)
        about, manifest = path.stat(), self.origins["features"][place]
        key = [str(path.resolve()), about.st_size, about.st_mtime_ns, describe_manifest(manifest), manifest]
        key += [self.amp] if self.amp != "none" else []
        file = self.cache / f"{path.stem}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz"
        # One that is missing or damaged is made again.
        with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), np.load(file, allow_pickle=False) as known:
            return Encoded(known["features"], float(known["duration"]), str(known["shortfall"]))
        found = self._extractors[place].extract_one(path)
        with atomic_write(file, "wb", durable=False) as stream:
            np.savez(stream, **vars(found))
        return found

    def ask(self, query: str, video: str | None = None) -> Answer:
        """Ask about a video that was added, the last one unless named; unpacks into moments and relevance.

        Raises ``UserError`` where the query has no word, or there is no such video.
        """
        return self.ask_all([query], video)[0]

    def ask_all(self, queries: Sequence[str], video: str | None = None) -> list[Answer]:
        """Ask several queries about one video, at once; raise ``UserError`` as ``ask`` does."""
        if not self.videos or (video is not None and video not in self.videos):
            known = f"; there are {', '.join(self.videos)}" if self.videos else ""
            raise UserError(f"no video {video or ''} was added{known}: call add(path) first")
        about = self.videos[video or list(self.videos)[-1]]
        empty = [query for query in queries if not self.words_of(query)]
        if empty:
            raise UserError(f"no word in the query {empty[0]!r}: say what to look for")
        predictor = self._predictor_for([word for query in queries for word in self.words_of(query)], about)
        parts = windows_of(len(about.features), self._longest(about.clip_seconds))
        windows = {str(part.start): predictor.shorten(about.features[part.start : part.stop]) for part in parts}
        bank = ArrayBank(windows, about.features.shape[1])
        records = [
            Record(f"{number}_{part.start}", str(part.start), clean_sentence(query), (), self._seconds(about, part))
            for number, query in enumerate(queries)
            for part in parts
        ]
        items, collate = predictor.examples(records, bank), predictor.collate(bank)
        moments: list[list[Moment]] = [[] for _ in queries]
        curves, counts = np.zeros((len(queries), len(about.features))), np.zeros(len(about.features))
        for part in parts:
            counts[part.start : part.stop] += 1
        for first in range(0, len(items), BATCH):
            found = predictor.predict(collate(items[first : first + BATCH]))
            times, scores = found.moments.double().cpu().numpy(), found.scores.double().cpu().numpy()
            relevance = found.relevance.double().cpu().numpy()
            for row, place in enumerate(range(first, min(first + BATCH, len(items)))):
                query, number = divmod(place, len(parts))
                window = parts[number]
                offset = window.start * about.clip_seconds
                for (start, end), score in zip(times[row], scores[row], strict=True):
                    moments[query].append(Moment(float(start + offset), float(end + offset), float(score)))
                clips = np.arange(len(window)) * len(windows[str(window.start)]) // len(window)
                curves[query, window.start : window.stop] += relevance[row, clips]
        several = len(parts) > 1
        return [
            Answer(merged(each) if several else each, curve / counts)
            for each, curve in zip(moments, curves, strict=True)
        ]

    def words_of(self, query: str) -> list[str]:
        """Return the words of a query, as the run splits it."""
        return tokenize(query, style=self.settings.tokenizer)

    def unseen(self, query: str) -> list[str]:
        """Return the words of a query that no training sentence of the run had."""
        return self._vocabulary.unseen(self.words_of(query))

    def bridged(self, queries: Sequence[str]) -> list[str]:
        """Return how the bridge read queries that were asked, a line for each with words that training never had."""
        words = None if self._predictor is None else getattr(self._predictor.task.collate, "queries", None)
        return words.examples(queries, len(queries)) if isinstance(words, BridgedWords) else []

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.from_json(self.run.vocabulary())

    def _longest(self, clip_seconds: float) -> int:
        """Return how many clips the model is asked about at once: those of the longest video that it was trained on."""
        clips, seconds = int(self.origins["longest_clips"]), self.origins.get("longest_seconds")
        if self.settings.clip_pooling == "cut":
            return clips
        if seconds is None:  # a run of an earlier version, whose longest videos may have been shortened
            return clips if clips < self.settings.max_clips else sys.maxsize
        return max(clips, math.ceil(seconds / clip_seconds))

    def _seconds(self, video: VideoFeatures, part: range) -> float:
        """Return how long a window is: its clips, and for the last one what the video has left."""
        left = video.duration - part.start * video.clip_seconds
        return left if part.stop == len(video.features) else len(part) * video.clip_seconds

    def _predictor_for(self, words: Sequence[str], video: VideoFeatures) -> RunPredictor:
        """Return the run's model, which knows these words."""
        if self._predictor is not None and self._words >= set(words):
            return self._predictor
        settings, queries, known = self.settings, None, self._words.union(words)
        with tempfile.TemporaryDirectory() as folder:
            if getattr(settings, "query_features", None):
                encoder = self._text_encoder(self.origins["query_features"])
                queries = EncodedQueries(encoder, settings.max_words, settings.normalize_words)
            elif (manifest := self.origins.get("words")) is not None:
                table = self._extended_table(settings.word_table, known, manifest, Path(folder))
                settings = replace(settings, words=table)
            self._predictor = RunPredictor.load(
                self.run,
                settings,
                MemoryFeatures({video.path.stem: video.features}),
                sorted(known),
                self.device,
                weights=self.weights,
                queries=queries,
                levels=self.levels,
                bridge=self.bridge,
            )
        self._words = known  # once it is loaded: with words that cannot be read, there is no such model
        return self._predictor

    def _extended_table(self, path: Path, known: Collection[str], manifest: Mapping[str, Any], folder: Path) -> Path:
        """Return a word table that has the words of the queries, too, encoded like its own."""
        table = load_word_vectors(path)
        new = sorted(word for word in known if word not in table)
        if not new:
            return path
        vectors = self._text_encoder(manifest).encode_words(new)
        np.savez(folder / "words.npz", words=[*table.words, *new], vectors=np.concatenate([table.vectors, vectors]))
        return folder / "words.npz"
