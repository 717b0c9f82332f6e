"""Answers of one shard: batches of queries in, lines of JSON out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hero_plugin.integrations.scoring.submissions import submission_line
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.process import Interrupts
from hero_plugin.integrations.tools.predict.model import RunPredictor
from hero_plugin.integrations.tools.predict.reading import QueryWindow, WindowBatch
from hero_plugin.integrations.tools.predict.store import Part
from hero_plugin.integrations.training.batching import to_device
from hero_plugin.integrations.training.device import Amp, autocast
from hero_plugin.integrations.training.task import Prediction

# Progress of a shard: a bar on a terminal, an occasional line elsewhere.


LINE_SECONDS = 30.0


class ProgressMeter:
    """Count the answered entries of the query file.

    Args:
        screen: where to show them.
        label: what is counted.
        total: entries of this shard.
        done: entries that earlier starts answered.
    """

    def __init__(self, screen: Screen, label: str, total: int, done: int) -> None:
        self.screen, self.label, self.total, self.done = screen, label, total, done
        self._before, self._start = done, time.monotonic()
        self._said = self._start
        self._advance = lambda done, note: None

    @contextmanager
    def showing(self) -> Iterator[ProgressMeter]:
        """Show the bar until the block ends."""
        with self.screen.bars(transient=True) as bars:
            task = bars.add_task(self.label, total=self.total, completed=self.done, note="")
            self._advance = lambda done, note: bars.update(task, completed=done, note=note)
            yield self

    @property
    def rate(self) -> float:
        """Queries per second since this start."""
        return (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)

    def add(self, count: int) -> None:
        """Count more answered entries."""
        self.done += count
        self._advance(self.done, f"{self.rate:.0f}/s")
        if not self.screen.console.is_terminal and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            self.screen.say(self.line())

    def line(self) -> str:
        """Return the progress as one line of text."""
        left = (self.total - self.done) / max(self.rate, 1e-9)
        return f"{self.label}: {self.done} of {self.total} queries, {self.rate:.0f}/s, {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


@dataclass(frozen=True)
class AnswerOptions:
    """Choices about what is written per query.

    Attributes:
        top_k: number of windows, 0 for all.
        saliency: write the clips' scores, where the base has them.
        score: repeat the best window's score unrounded, to rank by.
    """

    top_k: int = 0
    saliency: bool = True
    score: bool = False


class Answerer:
    """A model that answers batches on one device."""

    def __init__(self, predictor: RunPredictor, device: torch.device, amp: Amp, options: AnswerOptions) -> None:
        self.predictor, self.device, self.amp, self.options = predictor, device, amp, options

    @torch.inference_mode()
    def predict(self, window_batch: WindowBatch) -> Prediction:
        """Return a batch's answers, still on the device."""
        assert window_batch.batch is not None
        batch = to_device(window_batch.batch, self.device)
        with autocast(self.amp, self.device):
            return self.predictor.task.predict(self.predictor.task.model, batch)

    def lines(self, window: QueryWindow, answers: list[tuple[WindowBatch, Prediction]]) -> list[str]:
        """Return one JSON line per record of a window, in its order."""
        lines = [""] * len(window.records)
        for window_batch, answer in answers:
            keep = self.options.top_k or answer.scores.shape[1]
            moments, scores = (
                each[:, :keep].float().cpu().double().numpy() for each in (answer.moments, answer.scores)
            )
            saliency = None
            if self.options.saliency and answer.saliency is not None:
                saliency = answer.saliency.float().cpu().numpy()
            for row, index in enumerate(window_batch.order):
                clips = None if saliency is None else saliency[row, : window.lengths[index]]
                lines[index] = self._line(window, index, moments[row], scores[row], clips)
        return lines

    def _line(self, window: QueryWindow, index: int, moments: np.ndarray, scores: np.ndarray, clips: Any) -> str:
        line = submission_line(window.records[index], moments, scores, clips)
        if self.options.score:
            line["score"] = float(f"{scores.max():.9g}")
        return json.dumps(line, ensure_ascii=False, allow_nan=False)


def answer_all(
    window_batches: Iterable[WindowBatch], answerer: Answerer, part: Part, meter: ProgressMeter, interrupts: Interrupts
) -> bool:
    """Answer and write window by window; return False if stopped before the end.

    A window that is unfinished when the stop comes is dropped; the next start answers it again.
    """
    answers: list[tuple[WindowBatch, Prediction]] = []
    waiting = computing = 0.0
    processor = time.process_time()
    for window_batch, waited in _timed(window_batches):
        waiting += waited
        if interrupts.requested:
            return False
        start = time.perf_counter()
        if window_batch.batch is not None:
            answers.append((window_batch, answerer.predict(window_batch)))
            computing += time.perf_counter() - start
            continue
        window = window_batch.window
        # The first of these reads waits until the device has done the window.
        lines = answerer.lines(window, answers)
        computing += time.perf_counter() - start
        before, processor = processor, time.process_time()
        times = {"waiting": waiting, "computing": computing, "processor": processor - before}
        part.add(window.number, lines, **_about(window), **times)
        meter.add(window.asked)
        answers, waiting, computing = [], 0.0, 0.0
    return True


def _about(window: QueryWindow) -> dict[str, Any]:
    """Return what the journal keeps of a window beside its answers."""
    return {
        "asked": window.asked,
        "dropped": [
            {"qid": query.query_id, "vid": query.video, "where": problem.where, "why": problem.what}
            for query, problem in window.dropped
        ],
        "videos": window.videos,
        "clips": window.clips,
        "hours": window.hours,
        "searched": sum(record.duration for record in window.records) / 3600,
        "reading": window.seconds,
    }


def _timed(window_batches: Iterable[WindowBatch]) -> Iterator[tuple[WindowBatch, float]]:
    """Iterate over batches with the seconds that each was waited for."""
    iterator = iter(window_batches)
    while True:
        start = time.perf_counter()
        window_batch = next(iterator, None)
        if window_batch is None:
            return
        yield window_batch, time.perf_counter() - start
