"""Where a model's clip scores lie, inside a moment and outside, and what a binary cross-entropy makes of them.

python docs/experiments/clip_scores.py ANNOTATIONS PREDICTIONS [PREDICTIONS ...]

PREDICTIONS are what `hero-plugin eval --run RUN --annotations ANNOTATIONS --predictions PREDICTIONS` writes for a DETR.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np

from hero_plugin.integrations.data.annotations import read_annotations


def clip_scores(annotations: str, predictions: str) -> dict[str, float]:
    """Means over the queries that have clips on both sides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = {record.query_id: record for record in read_annotations(annotations, on_broken="drop")}
    rows = []
    with open(predictions) as lines:
        for line in map(json.loads, lines):
            record, score = records[line["qid"]], np.array(line["pred_saliency_scores"])
            middle = (np.arange(len(score)) + 0.5) * record.duration / len(score)
            inside = np.any([(start <= middle) & (middle <= end) for start, end in record.moments], axis=0)
            if inside.any() and not inside.all():
                wins = (score[inside][:, None] > score[~inside]).mean()
                centred = score - score.mean()
                rows.append(
                    (score[inside].mean(), score[~inside].mean(), wins, bce(score, inside), bce(centred, inside))
                )
    names = ("inside", "outside", "AUC", "BCE", "BCE, centred")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def bce(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0.0, logits) - logits * labels))


if __name__ == "__main__":
    for path in sys.argv[2:]:
        print(path, *(f"{name} {value:.3f}" for name, value in clip_scores(sys.argv[1], path).items()), sep="  ")
