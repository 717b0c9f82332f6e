"""Answers of one shard: batches of queries in, lines of JSON out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from hero_plugin.integrations.scoring.submissions import submission_line
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.process import Interrupts
from hero_plugin.integrations.tools.predict.config import PredictConfig
from hero_plugin.integrations.tools.predict.model import RunPredictor
from hero_plugin.integrations.tools.predict.reading import QueryWindow, WindowBatch
from hero_plugin.integrations.tools.predict.store import Part
from hero_plugin.integrations.training.task import Prediction

LINE_SECONDS = 30.0


class ProgressMeter:
    """Count of a shard's answered entries: a bar on a terminal, an occasional line elsewhere.

    Args:
        screen: where to show them.
        label: what is counted.
        total: entries of this shard.
        done: entries that earlier starts answered.

    Attributes:
        bars: the bar, shown while this context is open.
    """

    def __init__(self, screen: Screen, label: str, total: int, done: int) -> None:
        self.screen, self.label, self.total, self.done = screen, label, total, done
        self.bars = screen.bars()
        self._bar = self.bars.add_task(label, total=total, completed=done, note="")
        self._before, self._start = done, time.monotonic()
        self._said = self._start

    def add(self, count: int) -> None:
        """Count more answered entries."""
        self.done += count
        now = time.monotonic()
        rate = (self.done - self._before) / max(now - self._start, 1e-9)
        self.bars.update(self._bar, completed=self.done, note=f"{rate:.0f}/s")
        if not self.screen.console.is_terminal and now - self._said >= LINE_SECONDS:
            self._said = now
            left = _duration((self.total - self.done) / max(rate, 1e-9))
            self.screen.say(f"{self.label}: {self.done} of {self.total} queries, {rate:.0f}/s, {left} left")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def answer_windows(
    window_batches: Iterable[WindowBatch],
    predictor: RunPredictor,
    config: PredictConfig,
    part: Part,
    meter: ProgressMeter,
    interrupts: Interrupts,
) -> bool:
    """Answer and write window by window; return False if stopped before the end.

    A window that is unfinished when the stop comes is dropped; the next start answers it again.
    """
    answers: list[tuple[WindowBatch, Prediction]] = []
    waiting = computing = 0.0
    processor, end = time.process_time(), time.perf_counter()
    for window_batch in window_batches:
        start = time.perf_counter()
        waiting += start - end
        if interrupts.requested:
            return False
        window = window_batch.window
        if window_batch.batch is not None:
            answers.append((window_batch, predictor.predict(window_batch.batch)))
            end = time.perf_counter()
            computing += end - start
            continue
        # The first of these reads waits until the device has done the window.
        lines = answer_lines(window, answers, config)
        computing += time.perf_counter() - start
        before, processor = processor, time.process_time()
        times = {"waiting": waiting, "computing": computing, "processor": processor - before}
        part.add(window.number, lines, **window.to_json(), **times)
        meter.add(window.asked)
        answers, waiting, computing, end = [], 0.0, 0.0, time.perf_counter()
    return True


def answer_lines(
    window: QueryWindow, answers: Iterable[tuple[WindowBatch, Prediction]], config: PredictConfig
) -> list[str]:
    """Return one JSON line per record of a window, in its order."""
    lines = [""] * len(window.records)
    for window_batch, answer in answers:
        keep = config.top_k or answer.scores.shape[1]
        moments, scores = (each[:, :keep].float().cpu().double().numpy() for each in (answer.moments, answer.scores))
        saliency = answer.saliency.float().cpu().numpy() if config.saliency and answer.saliency is not None else None
        for row, index in enumerate(window_batch.order):
            clips = None if saliency is None else saliency[row, : window.lengths[index]]
            line = submission_line(window.records[index], moments[row], scores[row], clips)
            if config.every_video:  # the best window's score unrounded, to rank by
                line["score"] = float(f"{scores[row].max():.9g}")
            lines[index] = json.dumps(line, ensure_ascii=False, allow_nan=False)
    return lines
