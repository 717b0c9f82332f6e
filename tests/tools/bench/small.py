"""Sizes at which a step takes milliseconds."""

from __future__ import annotations

from hero_plugin.integrations.tools.bench.models import Sizes, sizes_of

SMALL = {"batch": 3, "clips": 16, "words": 6, "dim": 16, "video_dim": 12, "text_dim": 10}


def small(base: str, **changes: int) -> Sizes:
    return sizes_of(base, **{**SMALL, **changes})
