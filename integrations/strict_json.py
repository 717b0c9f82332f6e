"""NaN as null: standard JSON has no NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def nan_to_null(scores: Any) -> Any:
    """Return the scores with None for every NaN (the score of no query), in mappings and lists."""
    if isinstance(scores, Mapping):
        return {key: nan_to_null(value) for key, value in scores.items()}
    if isinstance(scores, (list, tuple)):
        return [nan_to_null(value) for value in scores]
    return None if isinstance(scores, float) and math.isnan(scores) else scores
