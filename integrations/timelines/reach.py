"""What described videos let be reached: by who sees nothing, by who reads, by who knows the moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hero_plugin.integrations.records import Record
from hero_plugin.integrations.timelines.timeline import Timeline
from hero_plugin.metrics import grounding_scores

__all__ = ["reach"]

_STEPS = 20  # the edges of the constant answer: twentieths of a video


def reach(
    asked: Sequence[Record],
    meanings: np.ndarray,
    timelines: Mapping[str, Timeline],
    described: np.ndarray,
    trained: Sequence[Record],
) -> dict[str, dict[str, float]]:
    """R1@0.3, R1@0.5, R1@0.7 and mIoU in percent, by who answers.

    * "one answer": the same part of every video, the one that is right most often on the training queries;
    * "by the words": the moment of the described sentence whose words are nearest (cosine);
    * "by the moment": that of the described sentence whose moment overlaps best. More cannot be seen.

    meanings: (asked, words' dim); described: (sentences, words' dim), rows as the timelines' classes name them.
    """
    truth, durations = _moments(asked)
    known, lengths = _moments(trained)
    grid = [(a / _STEPS, b / _STEPS) for a in range(_STEPS) for b in range(a + 1, _STEPS + 1)]
    usual = max(grid, key=lambda part: _rank(grounding_scores(np.outer(lengths, part), known)))
    read, seen = [], []
    for query, meaning in zip(asked, meanings, strict=True):
        timeline = timelines[query.video_id]
        sentences = described[timeline.classes]
        nearness = sentences @ meaning / np.maximum(np.linalg.norm(sentences, axis=1), 1e-12)
        for answers, scores in ((read, nearness), (seen, timeline.overlaps(*query.moments[0]))):
            best = int(np.argmax(scores))
            answers.append((timeline.starts[best], timeline.ends[best]))
    return {
        f"one answer ({100 * usual[0]:.0f} to {100 * usual[1]:.0f} % of the video)": grounding_scores(
            np.outer(durations, usual), truth
        ),
        "by the words": grounding_scores(np.array(read), truth),
        "by the moment": grounding_scores(np.array(seen), truth),
    }


def _rank(scores: Mapping[str, float]) -> tuple[float, float]:
    return scores["R1@0.5"], scores["mIoU"]


def _moments(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([record.moments[0] for record in records]), np.array([record.duration for record in records])
