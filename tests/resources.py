"""Where tests find what is not in this repository, and the reason they give when it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared(*parts: str) -> Path:
    """A file or folder of the shared data; skips the test where it is absent."""
    root = Path(os.environ.get("HERO_SHARED", REPOSITORY.parent / "shared")) / "data"
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared data not found: {'/'.join(parts)} (set HERO_SHARED to the folder that holds data/)")
    return path


def upstream(name: str) -> Path:
    """The clone of an upstream repository; skips the test where it is absent."""
    root = os.environ.get("HERO_UPSTREAM")
    if not root:
        pytest.skip("HERO_UPSTREAM is not set: no upstream clones to compare with")
    path = Path(root) / name
    if not path.is_dir():
        pytest.skip(f"HERO_UPSTREAM has no folder {name}")
    return path
