"""Features of videos and of queries, one file each, beside a manifest: ``hero-plugin data extract``."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import tyro

from hero_plugin.integrations.data import ReadReport, load_word_vectors, read_sentences, tokenize
from hero_plugin.integrations.data.feature_bank import MANIFEST, make_manifest, manifest_difference, read_manifest
from hero_plugin.integrations.support import DataError, Interrupted, Problem, Problems, UserError, write_json
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.files import atomic_write, lock_folder, remove_leftovers
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.tools.video.decode import SUFFIXES, ClipSampler, Video, samples_per_clip
from hero_plugin.integrations.tools.video.encoders import FrameEncoder, TextEncoder, load_encoder
from hero_plugin.integrations.training.distributed import Amp, choose_device


@dataclass(frozen=True)
class ExtractConfig:
    """Make features of videos, VIDEO.npz each, or of queries, qidQUERY.npz each, as Moment-DETR's authors publish them.

    The same command goes on where it was stopped. A file that cannot be read is named and passed over.
    """

    output: Path
    """Folder of the features, and of the manifest that says what made them."""
    videos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Video files, or folders of such. A video is called by its file's name without the ending."""
    queries: tuple[Path, ...] = ()
    """Annotation files, instead of videos: features of their queries, by the text encoder."""
    word_table: Path | None = None
    """With --queries: also a word table (.npz) for EMB, each of their words encoded alone."""
    encoder: tuple[str, ...] = ("openai/clip-vit-base-patch32",)
    """A CLIP or SigLIP model, by folder or by name on the Hugging Face Hub, or package.module:function. Features of
    several are concatenated; queries are encoded by the first, which may be a model of texts alone."""
    text_layers: tuple[int, ...] = ()
    """With --queries: layers of the text encoder whose vectors a token gets, side by side, from 0, the words as its
    first layer gets them; the last unless given. For `--hero.levels-from input`."""
    download: bool = False
    """Fetch an encoder that is not on this machine."""
    clip_seconds: float = 2.0
    """Length of a clip: one row of features each."""
    frames_per_second: float | None = None
    """Samples whose features are averaged over a clip; one per clip unless given, or the encoder's own rate."""
    batch_size: int = 64
    """Frames encoded at once."""
    device: str = "auto"
    """auto takes CUDA where there is one."""
    amp: Amp = "none"
    """Half precision; fp16 on CUDA only."""

    def check(self) -> None:
        """Raise ``UserError`` for what is impossible or does not go together."""
        wrong = too_small(self, batch_size=1)
        if bool(self.videos) == bool(self.queries):
            wrong.append("give videos, or --queries with annotation files: each get a folder of their own")
        if self.word_table is not None and (not self.queries or self.word_table.suffix != ".npz"):
            wrong.append("--word-table names an .npz file, and goes with --queries")
        if self.text_layers and not self.queries:
            wrong.append("--text-layers goes with --queries")
        if not self.clip_seconds > 0:
            wrong.append(f"--clip-seconds must be positive, got {self.clip_seconds}")
        if self.frames_per_second is not None and not self.frames_per_second > 0:
            wrong.append(f"--frames-per-second must be positive, got {self.frames_per_second}")
        if not self.encoder:
            wrong.append("--encoder needs at least one name")
        wrong += [f"{path}: no such file or folder" for path in (*self.videos, *self.queries) if not path.exists()]
        if self.output.exists() and not self.output.is_dir():
            wrong.append(f"--output {self.output}: is a file; name a folder")
        if wrong:
            raise UserError("\n".join(wrong))


def main(config: ExtractConfig, screen: Screen | None = None) -> int:
    """Run the command. Return 1 where videos were passed over, else 0."""
    screen = screen or Screen()
    config.check()
    if config.queries:
        return extract_queries(config, screen)
    files, failed, done = find_videos(config.videos), list[Problem](), 0
    device = choose_device(config.device)
    encoders = [load_encoder(name, device, config.amp, download=config.download) for name in config.encoder]
    rates = [config.frames_per_second] * len(encoders)
    extractor = Extractor(encoders, config.clip_seconds, rates, config.batch_size)
    with ExitStack() as held:
        claim(config.output, extractor.manifest(), held)
        left = {name: path for name, path in files.items() if not _is_done(config.output / f"{name}.npz", path)}
        if len(left) < len(files):
            screen.say(f"{len(files) - len(left)} of {len(files)} videos were done before")
        try:
            with screen.working("extracting", len(left)) as progress:
                for done, (name, found) in enumerate(extractor.extract(left), 1):
                    if isinstance(found, Problem):
                        failed.append(found)
                    else:
                        with atomic_write(config.output / f"{name}.npz", "wb", durable=False) as stream:
                            np.savez(stream, features=found.features, source=np.array(mark_of(files[name])))
                        if found.shortfall:
                            screen.say(f"note: {files[name]}: {found.shortfall}; features are of what is there")
                    progress(done, len(left))
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; {done} of {len(left)} videos are done, the same command goes on") from None
    if extractor.rates.read:
        screen.say(extractor.rates.text())
    screen.say(f"{config.output}: features of {len(files) - len(failed)} of {len(files)} videos")
    for problem in failed:
        screen.say(f"passed over: {problem}")
    return 1 if failed else 0


def mark_of(video: Path) -> str:
    """Return a mark of a file by its size, its head and its tail: a video is large."""
    size, piece = video.stat().st_size, 1 << 16
    with open(video, "rb") as stream:
        found = hashlib.sha256(stream.read(piece))
        stream.seek(max(0, size - piece))
        found.update(stream.read(piece))
    return f"{size}-{found.hexdigest()[:16]}"


def _is_done(file: Path, video: Path) -> bool:
    """Return whether a video's features are there; those in a damaged file are not.

    Raises ``UserError`` where they are of another video of this name, or of what it was before.
    """
    try:
        with np.load(file, allow_pickle=False) as known:
            if "features" not in known.files:
                return False
            made_of = str(known["source"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # not there, or damaged
        return False
    if made_of != mark_of(video):
        raise UserError(
            f"{file}: holds features of another file than {video}, or of what that was before; delete it, or name "
            "another --output"
        )
    return True


def find_videos(paths: Sequence[Path]) -> dict[str, Path]:
    """Return video files by name; of a folder, all that end as videos do.

    Raises ``DataError`` for a folder without any, or two of one name.
    """
    found: dict[str, Path] = {}
    problems = Problems()
    for path in paths:
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            problems.add(str(path), f"no videos in it ({', '.join(SUFFIXES)})", "name another folder")
        for file in inside:
            if found.setdefault(file.stem, file).resolve() != file.resolve():
                what = f"is called {file.stem!r} like {found[file.stem]}"
                problems.add(str(file), what, "rename one of them, or give each an --output of its own")
    problems.raise_if_any()
    return found


def claim(folder: Path, manifest: Mapping[str, Any], held: ExitStack) -> None:
    """Make a folder for these features, or go on in one of the same kind, alone until ``held`` is closed.

    Raises ``UserError`` where it holds features of another kind, or other files, or another process is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not held.enter_context(lock_folder(folder)):
        raise UserError(f"{folder}: another process is at work in it")
    remove_leftovers(folder)
    known = read_manifest(folder)
    if known is None and any(each.suffix in (".npz", ".npy", ".pt") for each in folder.iterdir()):
        raise UserError(
            f"{folder}: holds features that say nothing of their encoder ({MANIFEST}); name another --output"
        )
    if known is not None and (differs := manifest_difference(known, manifest)):
        raise UserError(f"{folder}: asked for {differs}, which made what is there; name another --output")
    if known is None:
        write_json(folder / MANIFEST, manifest)


@dataclass
class Encoded:
    """The features of a video."""

    features: np.ndarray
    """(clips, width) float32."""
    duration: float
    """Seconds."""
    shortfall: str = ""
    """What was missing of the file."""


@dataclass
class Rates:
    """What was done, and in what time."""

    read: int = 0
    """Frames decoded."""
    encoded: int = 0
    """Frames encoded."""
    hours: float = 0.0
    decoding: float = 0.0
    encoding: float = 0.0
    """Seconds."""
    processor: float = field(default_factory=time.process_time)

    def text(self) -> str:
        """Say how fast it went, and where the time went."""
        seconds = max(self.decoding + self.encoding, 1e-9)
        processor = max(time.process_time() - self.processor, 1e-9)
        return (
            f"{self.hours:.2f} h of video in {seconds:.1f} s: {self.read / seconds:.0f} frames per second decoded, "
            f"{self.read / processor:.0f} per second of a core; {self.encoded} frames encoded; "
            f"decoding {self.decoding / seconds:.0%} of the time, encoding {self.encoding / seconds:.0%}"
        )


@dataclass
class _Waiting:
    """A video of which clips are still to be encoded."""

    name: str
    parts: list[list[np.ndarray]]
    """By encoder, the features of clips so far."""
    clips: int = -1
    """How many there will be; -1 while it is read."""
    duration: float = 0.0
    shortfall: str = ""


class Extractor:
    """Encoders side by side; frames are read once for all of them, and batches run over the ends of videos.

    Features are concatenated. ``frames_per_second``, one per encoder, stand over the encoders' own where they are
    given; ``batch_size`` counts frames. No whole number of frames per clip raises ``UserError``.
    """

    def __init__(
        self,
        encoders: Sequence[FrameEncoder],
        clip_seconds: float,
        frames_per_second: Sequence[float | None] = (),
        batch_size: int = 64,
    ) -> None:
        self.encoders, self.clip_seconds, self.rates = list(encoders), clip_seconds, Rates()
        pairs = zip(self.encoders, frames_per_second or [None] * len(encoders), strict=True)
        self.frame_rates = [rate or each.frames_per_second or 1 / clip_seconds for each, rate in pairs]
        counts = [samples_per_clip(clip_seconds, rate) for rate in self.frame_rates]
        self.batches = [max(1, batch_size // count) for count in counts]
        self._clips: list[list[tuple[list[np.ndarray], np.ndarray]]] = [[] for _ in self.encoders]

    def manifest(self) -> dict[str, Any]:
        """Return what the features will depend on."""
        pairs = zip(self.encoders, self.frame_rates, strict=True)
        identities = [{**each.identity(), "frames_per_second": rate} for each, rate in pairs]
        return make_manifest(identities, clip_seconds=self.clip_seconds, pooling="mean")

    def extract(self, files: Mapping[str, Path]) -> Iterator[tuple[str, Encoded | Problem]]:
        """Yield each video's features by name, or why there are none; memory holds a batch of clips."""
        waiting: list[_Waiting] = []
        for name, path in files.items():
            video = _Waiting(name, [[] for _ in self.encoders])
            try:
                self._read(path, video)
            except DataError as error:
                for place, part in enumerate(video.parts):
                    self._clips[place] = [each for each in self._clips[place] if each[0] is not part]
                yield name, error.problems[0]
                continue
            waiting.append(video)
            while waiting and (found := self._finished(waiting[0])):
                yield waiting.pop(0).name, found
        for place in range(len(self.encoders)):
            self._encode(place)
        for video in waiting:
            if found := self._finished(video):  # as all are now
                yield video.name, found

    def extract_one(self, path: Path) -> Encoded:
        """Return the features of one video; raise ``DataError`` where it cannot be read."""
        [(_, found)] = self.extract({path.stem: path})
        if isinstance(found, Problem):
            raise DataError([found])
        return found

    def _read(self, path: Path, waiting: _Waiting) -> None:
        """Decode a video; encode its clips whenever a batch of them is full."""
        samplers = [
            ClipSampler(self.clip_seconds, rate, each.size, each.fit)
            for each, rate in zip(self.encoders, self.frame_rates, strict=True)
        ]
        start, before = time.perf_counter(), self.rates.encoding
        video = Video(path)
        try:
            for moment, frame in video.frames():
                for place, sampler in enumerate(samplers):
                    self._take(place, sampler.add(moment, frame), waiting)
            for place, sampler in enumerate(samplers):
                self._take(place, sampler.finish(video.duration), waiting)
        finally:
            self.rates.read += video.frames_read
            self.rates.decoding += time.perf_counter() - start - (self.rates.encoding - before)
        waiting.clips = min(sampler.clips for sampler in samplers)
        waiting.duration, waiting.shortfall = video.duration, video.shortfall
        self.rates.hours += video.duration / 3600

    def _take(self, place: int, clips: Iterator[np.ndarray], waiting: _Waiting) -> None:
        for clip in clips:
            queue = self._clips[place]
            if queue and queue[0][1].shape != clip.shape:  # pictures of another size do not fit into one array
                self._encode(place)
            self._clips[place].append((waiting.parts[place], clip))
            if len(self._clips[place]) >= self.batches[place]:
                self._encode(place)

    def _encode(self, place: int) -> None:
        queue, self._clips[place] = self._clips[place], []
        if not queue:
            return
        start = time.perf_counter()
        found = self.encoders[place].encode(np.stack([clip for _, clip in queue]))
        for (part, clip), row in zip(queue, found, strict=True):
            part.append(row)
            self.rates.encoded += len(clip)
        self.rates.encoding += time.perf_counter() - start

    def _finished(self, video: _Waiting) -> Encoded | Problem | None:
        if any(len(part) < video.clips for part in video.parts):
            return None
        features = np.concatenate([np.stack(part[: video.clips]) for part in video.parts], axis=1).astype(np.float32)
        wrong = len(features) - int(np.isfinite(features).all(1).sum())
        if wrong:
            what = f"the encoder gives no numbers for {wrong} of its {len(features)} clips"
            return Problem(video.name, what, "leave --amp out, or look at the encoder")
        return Encoded(features, video.duration, video.shortfall)


def text_manifest(encoder: TextEncoder) -> dict[str, Any]:
    """Return the manifest of texts' features."""
    layers = {"layers": list(encoder.layers)} if encoder.layers else {}
    return make_manifest([{"name": encoder.name, "weights": encoder.weights, **layers}])


def _expect_same_words(file: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ``UserError`` where another encoder made the word table ``file``, or it does not say which."""
    known = read_manifest(file)
    if known is None or (differs := manifest_difference(manifest, known)):
        made = f"made by {differs}" if known is not None else "says nothing of what made it"
        raise UserError(f"--word-table {file}: is there, and {made}; name another file, or delete it")


def _joined(file: Path, words: list[str], vectors: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return these words and their vectors behind those of a table that is there."""
    table = load_word_vectors(file)
    new = [place for place, word in enumerate(words) if word not in table]
    return [*table.words, *(words[place] for place in new)], np.concatenate([table.vectors, vectors[new]])


def extract_queries(config: ExtractConfig, screen: Screen) -> int:
    """Write the features of queries, and of their words."""
    sentences: dict[str, str] = {}
    problems = Problems()
    for file in config.queries:
        report = ReadReport()
        records = read_sentences(file, on_broken="drop", report=report)
        if report.dropped:
            screen.say(f"{file}: left out {len(report.dropped)} queries that cannot be used")
        for record in records:
            where = f"{file}: query {record.query_id}"
            if not tokenize(record.sentence):
                problems.add(where, f"no word in {record.sentence!r}", "write a sentence, or remove it")
            if os.sep in record.query_id or record.query_id.startswith("."):
                problems.add(where, "cannot be the name of a file", "give it another id")
            if sentences.setdefault(record.query_id, record.sentence) != record.sentence:
                problems.add(where, "another query has this id", "give each its own id")
    problems.raise_if_any()
    device = choose_device(config.device)
    encoder = TextEncoder(config.encoder[0], device, config.amp, config.download, config.text_layers)
    manifest = text_manifest(encoder)
    if config.word_table is not None and config.word_table.is_file():
        _expect_same_words(config.word_table, manifest)
    with ExitStack() as held:
        claim(config.output, manifest, held)
        left = [query for query in sentences if not (config.output / f"qid{query}.npz").is_file()]
        for query in sentences.keys() - set(left):
            file = config.output / f"qid{query}.npz"
            try:
                with np.load(file, allow_pickle=False) as known:
                    said = str(known["sentence"]) if "sentence" in known.files else sentences[query]
            except (OSError, ValueError, EOFError, BadZipFile) as error:
                raise UserError(f"{file}: cannot be read ({error}); delete it, and it is made again") from error
            if said != sentences[query]:
                raise UserError(
                    f"{file}: holds {said!r}, and query {query} is {sentences[query]!r} here; name another --output, "
                    "or delete the file"
                )
        with screen.working("encoding queries", len(left)) as progress:
            for first in range(0, len(left), config.batch_size):
                some = left[first : first + config.batch_size]
                encoded = encoder.encode_text([sentences[query] for query in some])
                for query, (words, pooled) in zip(some, encoded, strict=True):
                    with atomic_write(config.output / f"qid{query}.npz", "wb", durable=False) as stream:
                        sentence = np.array(sentences[query])
                        np.savez(stream, last_hidden_state=words, pooler_output=pooled, sentence=sentence)
                progress(first + len(some), len(left))
    screen.say(f"{config.output}: features of {len(sentences)} queries")
    if config.word_table is not None:
        vocabulary = sorted({word for sentence in sentences.values() for word in tokenize(sentence)})
        vectors = encoder.encode_words(vocabulary)
        if config.word_table.is_file():
            vocabulary, vectors = _joined(config.word_table, vocabulary, vectors)
        with atomic_write(config.word_table, "wb") as stream:
            np.savez(stream, words=np.array(vocabulary), vectors=vectors, manifest=np.array(json.dumps(manifest)))
        screen.say(f"{config.word_table}: vectors of {len(vocabulary)} words")
    return 0
