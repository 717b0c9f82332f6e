"""Schedule of the elastic labels' threshold."""

from __future__ import annotations

import math


def elastic_threshold(epoch: int, epochs: int, low: float = 0.5) -> float:
    """Return the overlap with the annotation that a proposal needs to widen it, in ``(low, 1)``.

    Falls from 1 to ``low`` along a sigmoid centred on the middle of the training, so the labels start as
    annotated and become elastic once proposals can be trusted (EMB, section 3.3).

    Args:
        epoch: 0-based, below ``epochs``.
        epochs: of the training.
        low: where the threshold ends.
    """
    if not 0 <= epoch < epochs:
        raise ValueError(f"epoch must be in 0..{epochs - 1}, got {epoch}")
    steepness = 20.0
    return low + (1.0 - low) / (1.0 + math.exp(steepness * (epoch / epochs - 0.5)))
