"""The work of one shard: windows in, lines out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hero_plugin.integrations.interrupts import Interrupts
from hero_plugin.integrations.loading import to_device
from hero_plugin.integrations.precision import Amp, autocast
from hero_plugin.integrations.predict.journal import Part
from hero_plugin.integrations.predict.meter import Meter
from hero_plugin.integrations.predict.models import Predictor
from hero_plugin.integrations.predict.reading import Piece, Window
from hero_plugin.integrations.submissions import submission_line
from hero_plugin.integrations.task import Prediction


@dataclass(frozen=True)
class Choices:
    """What is written of a query.

    top_k: windows, 0 for all; saliency: the clips' scores, where the base has them; score: the best window's score
    once more, unrounded, to rank by.
    """

    top_k: int = 0
    saliency: bool = True
    score: bool = False


class Answerer:
    """A model over pieces, on one device."""

    def __init__(self, predictor: Predictor, device: torch.device, amp: Amp, choices: Choices) -> None:
        self.predictor, self.device, self.amp, self.choices = predictor, device, amp, choices

    @torch.inference_mode()
    def predict(self, piece: Piece) -> Prediction:
        """A batch's answers, still on the device."""
        assert piece.batch is not None
        batch = to_device(piece.batch, self.device)
        with autocast(self.amp, self.device):
            return self.predictor.task.predict(self.predictor.task.model, batch)

    def lines(self, window: Window, answers: list[tuple[Piece, Prediction]]) -> list[str]:
        """A JSON line for each record of a window, in its order."""
        lines = [""] * len(window.records)
        for piece, answer in answers:
            keep = self.choices.top_k or answer.scores.shape[1]
            moments, scores = (
                each[:, :keep].float().cpu().double().numpy() for each in (answer.moments, answer.scores)
            )
            saliency = None
            if self.choices.saliency and answer.saliency is not None:
                saliency = answer.saliency.float().cpu().numpy()
            for row, index in enumerate(piece.order):
                clips = None if saliency is None else saliency[row, : window.lengths[index]]
                lines[index] = self._line(window, index, moments[row], scores[row], clips)
        return lines

    def _line(self, window: Window, index: int, moments: np.ndarray, scores: np.ndarray, clips: Any) -> str:
        line = submission_line(window.records[index], moments, scores, clips)
        if self.choices.score:
            line["score"] = float(f"{scores.max():.9g}")
        return json.dumps(line, ensure_ascii=False, allow_nan=False)


def answer_all(pieces: Iterable[Piece], answerer: Answerer, part: Part, meter: Meter, interrupts: Interrupts) -> bool:
    """Answer and write window by window; False where it was asked to stop before the end.

    A window that has been begun when the stop comes is left: it is answered again by whoever goes on.
    """
    answers: list[tuple[Piece, Prediction]] = []
    waiting = computing = 0.0
    processor = time.process_time()
    for piece, waited in _timed(pieces):
        waiting += waited
        if interrupts.requested:
            return False
        start = time.perf_counter()
        if piece.batch is not None:
            answers.append((piece, answerer.predict(piece)))
            computing += time.perf_counter() - start
            continue
        window = piece.window
        # The first of these reads waits until the device has done the window.
        lines = answerer.lines(window, answers)
        computing += time.perf_counter() - start
        before, processor = processor, time.process_time()
        times = {"waiting": waiting, "computing": computing, "processor": processor - before}
        part.add(window.number, lines, **_about(window), **times)
        meter.add(window.asked)
        answers, waiting, computing = [], 0.0, 0.0
    return True


def _about(window: Window) -> dict[str, Any]:
    """What the journal says of a window, beside its answers."""
    return {
        "asked": window.asked,
        "dropped": [
            {"qid": asked.query_id, "vid": asked.video, "where": problem.where, "why": problem.what}
            for asked, problem in window.dropped
        ],
        "videos": window.videos,
        "clips": window.clips,
        "hours": window.hours,
        "searched": sum(record.duration for record in window.records) / 3600,
        "reading": window.seconds,
    }


def _timed(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, float]]:
    """Pieces, with how long each was waited for."""
    iterator = iter(pieces)
    while True:
        start = time.perf_counter()
        piece = next(iterator, None)
        if piece is None:
            return
        yield piece, time.perf_counter() - start
