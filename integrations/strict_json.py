"""JSON as its standard has it, which knows no nan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def without_nan(scores: Any) -> Any:
    """Figures of no query as null, in mappings and lists."""
    if isinstance(scores, Mapping):
        return {key: without_nan(value) for key, value in scores.items()}
    if isinstance(scores, (list, tuple)):
        return [without_nan(value) for value in scores]
    return None if isinstance(scores, float) and math.isnan(scores) else scores
