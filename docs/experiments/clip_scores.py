"""Where a model's clip scores lie, inside a moment and outside, and what a binary cross-entropy makes of them.

python docs/experiments/clip_scores.py RUN ANNOTATIONS FEATURES

RUN is the folder of a DETR's training.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np

from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.training.load_run import answer


def clip_scores(run: str, annotations: str, features: str) -> dict[str, float]:
    """Means over the queries that have clips on both sides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = read_annotations(annotations, on_broken="drop")
    rows = []
    for record, score in zip(records, answer(run, records, features).saliency, strict=True):
        middle = (np.arange(len(score)) + 0.5) * record.duration / len(score)
        inside = np.any([(start <= middle) & (middle <= end) for start, end in record.moments], axis=0)
        if inside.any() and not inside.all():
            wins = (score[inside][:, None] > score[~inside]).mean()
            centred = score - score.mean()
            rows.append((score[inside].mean(), score[~inside].mean(), wins, bce(score, inside), bce(centred, inside)))
    names = ("inside", "outside", "AUC", "BCE", "BCE, centred")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def bce(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0.0, logits) - logits * labels))


if __name__ == "__main__":
    print(*(f"{name} {value:.3f}" for name, value in clip_scores(*sys.argv[1:4]).items()), sep="  ")
