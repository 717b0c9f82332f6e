"""The checksum by which manifests identify a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

__all__ = ["checksum"]


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(stream)


def _hash(stream: Any) -> str:
    found = hashlib.sha256()
    while block := stream.read(1 << 20):
        found.update(block)
    return found.hexdigest()
