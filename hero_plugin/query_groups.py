"""Groups of queries, each query in exactly one: by the number of unseen words, or by a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["UNSEEN", "by_label", "by_unseen_words"]

UNSEEN = ("0", "1", "2+")
"""Groups by the number of unseen words."""


def by_unseen_words(numbers: Sequence[int]) -> dict[str, np.ndarray]:
    """Return masks (Q,) of the queries with no unseen word, with one, with two or more.

    >>> {group: mask.tolist() for group, mask in by_unseen_words([0, 3]).items()}
    {'0': [True, False], '1': [False, False], '2+': [False, True]}
    """
    counts = np.minimum(np.asarray(numbers, dtype=int), len(UNSEEN) - 1)
    return {group: counts == number for number, group in enumerate(UNSEEN)}


def by_label(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Return a mask (Q,) for each label, the label of the most queries first.

    >>> {group: mask.tolist() for group, mask in by_label(["synonym", "spelling", "synonym"]).items()}
    {'synonym': [True, False, True], 'spelling': [False, True, False]}
    """
    masks = {label: np.array([each == label for each in labels], dtype=bool) for label in dict.fromkeys(labels)}
    return dict(sorted(masks.items(), key=lambda item: -int(item[1].sum())))
