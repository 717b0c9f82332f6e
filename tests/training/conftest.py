"""Fixtures of the tests of training."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Hundreds of checkpoints are written here; waiting for the disk each time tests only the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
