"""Upstream's EMB for tests that compare with it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from hero_plugin.integrations.tools.bench.upstream import UpstreamEMB
from hero_plugin.integrations.tools.bench.upstream import load_upstream_emb as load_from
from tests.resources import upstream


def load_upstream_emb() -> UpstreamEMB:
    """The clone's EMB class, threshold and runner utilities; skips the test where there is no clone."""
    return loaded(upstream("EMB"))


@lru_cache
def loaded(clone: Path) -> UpstreamEMB:
    return load_from(clone)
