"""Padding of rows of different lengths, and sums over them that round as numpy's sum of each row does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def padded(
    rows: Sequence[Sequence[Any]] | Sequence[np.ndarray], fill: float, width: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows to the longest; return (R, longest, *width) float64, and their lengths (R,).

    Args:
        rows: R sequences of numbers, or of sequences of ``width`` numbers.
        fill: The padding.
        width: Shape of an item.
    """
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    values = np.full((len(rows), int(lengths.max(initial=0)), *width), fill)
    flat = [item for row in rows for item in row]
    if flat:
        values[np.arange(values.shape[1]) < lengths[:, None]] = np.array(flat, dtype=np.float64)
    return values, lengths


def sum_kept(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return the sum of each row's kept values, bit for bit what ``np.sum(row[keep])`` gives.

    Zeros in place of the others would not do: numpy adds eight partial sums side by side, so that zeros in
    between change which values meet first, and so the last bit. Rows with equally many are summed together.

    Args:
        values: (R, C).
        keep: (R, C) bool.

    Returns:
        (R,).
    """
    counts = keep.sum(axis=1)
    flat, starts = values[keep], np.cumsum(counts) - counts
    sums = np.zeros(len(values))
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        sums[rows] = flat[starts[rows, None] + np.arange(count)].sum(axis=1)
    return sums


def percent(fraction: float | np.floating[Any]) -> float:
    """Return a percentage with two decimals, rounded as printing rounds it."""
    return float(f"{100 * fraction:.2f}")
