"""The reading side of a prediction: its flags, the trained model, and a thread that makes batches while it works."""

import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hero_plugin.integrations.data import FeatureStore, OnBroken, Record
from hero_plugin.integrations.data.feature_bank import ArrayBank
from hero_plugin.integrations.support import DataError, Problem, UserError
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.tools.predict.queries import Query, QueryFile, QueryValidator
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.config import AnswerInputs, TrainConfig
from hero_plugin.integrations.training.detr import DetrTrainConfig
from hero_plugin.integrations.training.distributed import Amp
from hero_plugin.integrations.training.load_run import RunPredictor
from hero_plugin.integrations.training.queries import Queries, QueryFolder
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Batch


@dataclass(kw_only=True)
class PredictConfig(AnswerInputs):
    """Answer every query of a file by a trained run, in shards, resuming where it was stopped.

    The same command goes on after Ctrl-C, a kill or a power cut. Shards: start it under torchrun, or give --shard.
    """

    queries: Path
    """Queries: annotations of QVHighlights', ActivityNet's or Charades' form (moments are not read), or JSON lines of
    {"vid", "query"}, with "qid" and "duration" where there are any. With --every-video also plain text, one sentence
    per line."""
    output: Path
    """FILE.jsonl, or a folder that predictions.jsonl comes into."""
    every_video: bool = False
    """Ask every query of every video that has features, and rank the videos."""
    top_videos: int = 20
    """Number of videos in a ranking."""
    shard: str | None = None
    """I/N: answer the Ith (from 0) of N parts. Under torchrun each process takes one by itself."""
    checkpoint: str = "best"
    """best or last."""
    clip_seconds: float | None = None
    """Seconds per clip: a video without a known length is as long as its clips."""
    on_broken: OnBroken = "error"
    """Queries that cannot be answered: list them and stop, or leave them out and list them in the report."""
    top_k: int = 0
    """Windows to keep per query; 0: all that the base predicts."""
    saliency: bool = True
    """Write the scores of a video's clips, where the base has them."""
    batch_size: int = 64
    """Queries per batch."""
    window: int = 512
    """Queries that are read, sorted and written together; memory holds the features of about three windows."""
    readers: int = 4
    """Threads that read features."""
    sync_seconds: float = 5.0
    """Seconds between two flushes to the disk: at most that much work is repeated after a kill."""
    device: str = "auto"
    """auto takes CUDA where there is one, each process of torchrun its own."""
    amp: Amp | None = None
    """Half precision in the forward pass; as in the run unless given."""

    def check(self) -> None:
        """Raise ``UserError`` listing every impossible value."""
        wrong = too_small(self, batch_size=1, window=1, readers=1, top_videos=1, top_k=0, sync_seconds=0, threads=0)
        if self.clip_seconds is not None and not self.clip_seconds > 0:
            wrong.append(f"--clip-seconds must be positive, got {self.clip_seconds}")
        if self.checkpoint not in ("best", "last"):
            wrong.append(f"--checkpoint must be best or last, got {self.checkpoint!r}")
        wrong += [f"{path}: no such file" for path in (self.queries, self.durations) if path and not path.is_file()]
        if wrong:
            raise UserError("\n".join(wrong))


class StreamedQueries(Queries):
    """Vectors of queries from a file per query, read when a batch is made."""

    def __init__(self, files: QueryFolder, every_video: bool = False) -> None:
        self.files, self.dim, self.every_video = files, files.store.dim, every_video

    @classmethod
    def of(cls, settings: TrainConfig, every_video: bool = False) -> "StreamedQueries | None":
        """Open the folder that a run's settings name, None for a run that was trained without such."""
        if not isinstance(settings, DetrTrainConfig) or (folder := settings.query_features) is None:
            return None
        return cls(QueryFolder(folder, settings.max_words, settings.normalize_words), every_video)

    def problem(self, query: Query) -> Problem | None:
        """Return what is wrong with the features of a query, None if nothing is."""
        found = self.files.problem(self._alone(query.record(math.nan)))
        return None if found is None else Problem(query.where, *found)

    def _alone(self, record: Record) -> Record:
        """Return the query without the video that ``EveryVideo`` paired it with: all its pairs share a file."""
        alone = record.query_id.removesuffix(f"@{record.video_id}") if self.every_video else record.query_id
        return record.replace(query_id=alone)

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (B, L, dim) float32 with zeros for padding, and their mask (B, L) bool."""
        names = [self.files.name(self._alone(record)) for record in records]
        bank = ArrayBank({name: self.files.store[name] for name in dict.fromkeys(names)}, self.dim)
        return bank.batch([bank.rows[name] for name in names])


@dataclass
class Inputs:
    """Everything that the flags name, opened."""

    config: PredictConfig
    run: RunFolder
    settings: TrainConfig
    store: FeatureStore
    """Whole videos: what the run shortens is shortened once the clips are counted."""
    written: StreamedQueries | None
    """The queries' own features, for a base that reads such."""
    validator: QueryValidator
    queries: QueryFile

    @property
    def weights(self) -> Path:
        """The checkpoint that answers."""
        return self.run.best if self.config.checkpoint == "best" else self.run.last


_AHEAD = 5
"""Batches made before the model asks for them; their window is in memory beside the one being read."""


@dataclass
class QueryWindow:
    """Queries that are read, answered and written together."""

    number: int
    asked: int = 0
    records: list[Record] = field(default_factory=list)
    """Those that can be answered, in the file's order."""
    dropped: list[tuple[Query, Problem]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Clips of each record's video, as the model gets them."""
    videos: int = 0
    """Read for this window; those of the window before are still there."""
    clips: int = 0
    """Of these videos, as they lie on the disk."""
    hours: float = 0.0
    """Length of these videos."""
    seconds: float = 0.0
    """That reading and preparing took."""

    def to_json(self) -> dict[str, Any]:
        """Return what the journal keeps of a window beside its answers."""
        return {
            "asked": self.asked,
            "dropped": [
                {"qid": query.query_id, "vid": query.video, "where": problem.where, "why": problem.what}
                for query, problem in self.dropped
            ],
            "videos": self.videos,
            "clips": self.clips,
            "hours": self.hours,
            "searched": sum(record.duration for record in self.records) / 3600,
            "reading": self.seconds,
        }


@dataclass
class WindowBatch:
    """One batch of a window. The last one of a window has no batch."""

    window: QueryWindow
    batch: Batch | None = None
    order: list[int] = field(default_factory=list)
    """Which of the window's records the rows of the batch are."""


class WindowReader:
    """Iterator over the batches of the windows ``wanted``, which a thread reads ahead of the model.

    Raises ``DataError`` where queries of a window cannot be answered and may not be left out.
    """

    def __init__(self, inputs: Inputs, wanted: range, predictor: RunPredictor) -> None:
        self.inputs, self.wanted, self.predictor = inputs, wanted, predictor
        self._pool = ThreadPoolExecutor(inputs.config.readers, thread_name_prefix="features")
        # By video of the last window: its features as the model gets them, and how many clips are on the disk.
        self._arrays: dict[str, tuple[np.ndarray, int] | DataError] = {}

    def __iter__(self) -> Generator[WindowBatch, None, None]:
        batches = self._all_batches()
        thread = ThreadPoolExecutor(1, thread_name_prefix="windows")
        try:
            ahead = deque(thread.submit(next, batches, None) for _ in range(_AHEAD))
            while (found := ahead.popleft().result()) is not None:
                ahead.append(thread.submit(next, batches, None))
                yield found
        finally:
            thread.shutdown(cancel_futures=True)
            self._pool.shutdown()

    def _all_batches(self) -> Iterator[WindowBatch]:
        for number, queries in self.inputs.queries.windows(self.wanted):
            start = time.perf_counter()
            window, bank = self._window(number, queries)
            items = self.predictor.examples(window.records, bank) if window.records else []
            collate = self.predictor.collate(bank)
            window.seconds = time.perf_counter() - start
            for order in self._batches(window, bank):
                start = time.perf_counter()
                batch = collate([items[index] for index in order])
                if self.predictor.device.type == "cuda":
                    batch = {name: value.pin_memory() for name, value in batch.items()}
                window.seconds += time.perf_counter() - start
                yield WindowBatch(window, batch, order)
            yield WindowBatch(window)

    def _window(self, number: int, queries: list[Query]) -> tuple[QueryWindow, ArrayBank]:
        """Return the window of some queries, and the features of its videos."""
        window = QueryWindow(number, len(queries))
        checked = [(query, self.inputs.validator(query)) for query in queries]
        fresh = self._read(list(dict.fromkeys(found.video_id for _, found in checked if isinstance(found, Record))))
        hours: dict[str, float] = {}
        for query, found in checked:
            if isinstance(found, Record):
                found = self._with_clips(query, found)
            if isinstance(found, Problem):
                window.dropped.append((query, found))
            else:
                window.records.append(found)
                hours[found.video_id] = found.duration / 3600
        if window.dropped and self.inputs.config.on_broken == "error":
            raise DataError(problem for _, problem in window.dropped)
        whole = {video: entry for video, entry in self._arrays.items() if not isinstance(entry, DataError)}
        fresh = [video for video in fresh if video in whole]
        window.videos, window.clips = len(fresh), sum(whole[video][1] for video in fresh)
        window.hours = sum(hours[video] for video in fresh)
        bank = ArrayBank({video: array for video, (array, _) in whole.items()}, self.inputs.store.dim)
        window.lengths = [bank.clips(bank.rows[record.video_id]) for record in window.records]
        return window, bank

    def _read(self, videos: list[str]) -> list[str]:
        """Read the features of these videos, and return those that were not there from the window before."""
        fresh = [video for video in videos if video not in self._arrays]
        known = self._arrays | dict(zip(fresh, self._pool.map(self._read_one, fresh), strict=True))
        self._arrays = {video: known[video] for video in videos}
        return fresh

    def _read_one(self, video: str) -> tuple[np.ndarray, int] | DataError:
        try:
            array = self.inputs.store[video]
        except DataError as error:
            return error
        return self.predictor.shorten(array), len(array)

    def _with_clips(self, query: Query, record: Record) -> Record | Problem:
        """Return the record with its video's duration, or why the video's features cannot be read."""
        entry = self._arrays[record.video_id]
        if isinstance(entry, DataError):
            problem = entry.problems[0]
            return Problem(query.where, f"{problem.where}: {problem.what}", problem.fix)
        if math.isnan(record.duration):
            return record.replace(duration=entry[1] * (self.inputs.validator.clip_seconds or 0.0))
        return record

    def _batches(self, window: QueryWindow, bank: ArrayBank) -> list[list[int]]:
        """Group records of like length, longest first; among these, queries of one video together."""
        pads = not BASES[self.inputs.settings.base].reads_video_padding  # else only videos of one length share a batch
        rows = [bank.rows[record.video_id] for record in window.records]
        order = sorted(range(len(rows)), key=lambda index: (-window.lengths[index], rows[index], index))
        batches: list[list[int]] = []
        for index in order:
            last = batches[-1] if batches else []
            fits = pads or not last or window.lengths[last[0]] == window.lengths[index]
            if last and len(last) < self.inputs.config.batch_size and fits:
                last.append(index)
            else:
                batches.append([index])
        return batches
