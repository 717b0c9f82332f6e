"""Reader of query windows: it reads features and makes batches in a thread while the model works."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hero_plugin.integrations.data.feature_bank import ArrayBank
from hero_plugin.integrations.data.features import FeatureStore
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.support.errors import DataError, Problem
from hero_plugin.integrations.tools.predict.model import RunPredictor
from hero_plugin.integrations.tools.predict.queries import Query, QueryFile, QueryValidator
from hero_plugin.integrations.training.task import Batch

_AHEAD = 4
"""Batches that wait for the model; the window that they are of is in memory beside the one being read."""


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


@dataclass
class WindowBatch:
    """One batch of a window. The last one of a window has no batch."""

    window: QueryWindow
    batch: Batch | None = None
    order: list[int] = field(default_factory=list)
    """Which of the window's records the rows of the batch are."""


class WindowReader:
    """Read windows in a thread.

    >>> with WindowReader(...) as window_batches:
    ...     for window_batch in window_batches: ...

    Args:
        queries: the query file.
        wanted: numbers of the windows to read.
        validator: turns queries into records.
        store: features of the videos.
        shorten: applied to a video's features (clips, dim) before the model gets them.
        predictor: makes examples and batches.
        batch_size: queries per batch.
        readers: threads that read features.
        drop: leave out what cannot be answered; otherwise it ends the reading with ``DataError``, one per window.
        pin: pin the batches' memory.
    """

    def __init__(
        self,
        queries: QueryFile,
        wanted: range,
        validator: QueryValidator,
        store: FeatureStore,
        shorten: Any,
        predictor: RunPredictor,
        *,
        batch_size: int,
        readers: int,
        drop: bool,
        pin: bool = False,
    ) -> None:
        self.queries, self.wanted, self.validator, self.store = queries, wanted, validator, store
        self.shorten, self.predictor, self.batch_size = shorten, predictor, batch_size
        self.drop, self.pin = drop, pin
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="features")
        self._ready: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="windows", daemon=True)
        self._arrays: dict[str, tuple[np.ndarray, int] | DataError] = {}

    def __enter__(self) -> Iterator[WindowBatch]:
        self._thread.start()
        return self._window_batches()

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    def _window_batches(self) -> Iterator[WindowBatch]:
        while True:
            window_batch = self._ready.get()
            if window_batch is None:
                return
            if isinstance(window_batch, BaseException):
                raise window_batch
            yield window_batch

    def _run(self) -> None:
        try:
            for number, queries in self.queries.windows(self.wanted):
                for window_batch in self._window(number, queries):
                    self._put(window_batch)
                if self._stop.is_set():
                    return
            self._put(None)
        except BaseException as error:  # whatever it is, the thread that waits must hear of it
            self._put(error)

    def _put(self, window_batch: Any) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(window_batch, timeout=0.1)
                return
            except queue.Full:
                continue

    def _window(self, number: int, queries: list[Query]) -> Iterator[WindowBatch]:
        start = time.perf_counter()
        window = QueryWindow(number, len(queries))
        checked = [(query, self.validator(query)) for query in queries]
        arrays = self._read(window, dict.fromkeys(r.video_id for _, r in checked if isinstance(r, Record)))
        hours: dict[str, float] = {}
        for query, found in checked:
            if isinstance(found, Record):
                found = self._with_clips(query, found, hours)
            if isinstance(found, Problem):
                window.dropped.append((query, found))
            else:
                window.records.append(found)
        if window.dropped and not self.drop:
            raise DataError(problem for _, problem in window.dropped)
        bank = ArrayBank({video: entry[0] for video, entry in arrays.items()}, self.store.dim)
        window.hours = sum(hours.get(video, 0.0) for video in self._fresh)
        items = self.predictor.examples(window.records, bank) if window.records else []
        window.lengths = [bank.clips(bank.rows[record.video_id]) for record in window.records]
        collate = self.predictor.collate(bank)
        window.seconds = time.perf_counter() - start
        for order in self._batches(window, bank):
            start = time.perf_counter()
            chosen = [items[index] for index in order]
            batch = collate(chosen)
            if self.pin:
                batch = {name: value.pin_memory() for name, value in batch.items()}
            window.seconds += time.perf_counter() - start
            yield WindowBatch(window, batch, order)
        yield WindowBatch(window)

    def _batches(self, window: QueryWindow, bank: ArrayBank) -> list[list[int]]:
        """Group records of like length, longest first; among these, queries of one video together."""
        rows = [bank.rows[record.video_id] for record in window.records]
        order = sorted(range(len(rows)), key=lambda index: (-window.lengths[index], rows[index], index))
        batches: list[list[int]] = []
        for index in order:
            last = batches[-1] if batches else []
            fits = self.predictor.pads or not last or window.lengths[last[0]] == window.lengths[index]
            if last and len(last) < self.batch_size and fits:
                last.append(index)
            else:
                batches.append([index])
        return batches

    def _read(self, window: QueryWindow, videos: dict[str, None]) -> dict[str, tuple[np.ndarray, int]]:
        """Return the features of these videos, and how many clips each has on the disk."""
        self._fresh = [video for video in videos if video not in self._arrays]
        read = dict(zip(self._fresh, self._pool.map(self._one, self._fresh), strict=True))
        self._arrays = {video: read.get(video) or self._arrays[video] for video in videos}
        whole = {video: entry for video, entry in self._arrays.items() if not isinstance(entry, DataError)}
        self._fresh = [video for video in self._fresh if video in whole]
        window.videos, window.clips = len(self._fresh), sum(whole[video][1] for video in self._fresh)
        return whole

    def _one(self, video: str) -> tuple[np.ndarray, int] | DataError:
        try:
            array = self.store[video]
        except DataError as error:
            return error
        return self.shorten(array), len(array)

    def _with_clips(self, query: Query, record: Record, hours: dict[str, float]) -> Record | Problem:
        entry = self._arrays[record.video_id]
        if isinstance(entry, DataError):
            problem = entry.problems[0]
            return Problem(query.where, f"{problem.where}: {problem.what}", problem.fix)
        if math.isnan(record.duration):
            record = record.replace(duration=entry[1] * (self.validator.clip_seconds or 0.0))
        hours[record.video_id] = record.duration / 3600
        return record
