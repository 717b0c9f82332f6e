"""Sets of queries as flags name them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def named_sets(given: Iterable[str]) -> list[tuple[str, Path]]:
    """(name, path) of sets given as NAME=PATH, or as PATH with the file's name.

    A name has no slash: ``lr=0.1/test.json`` is a set named lr, ``./lr=0.1/test.json`` a file. And no other "=" than
    the one behind it, so that a name with its path can be read again.
    """
    pairs = []
    for text in given:
        name, equals, path = text.partition("=")
        named = equals and not any(slash in name for slash in (os.sep, os.altsep) if slash)
        pairs.append((name, Path(path)) if named else (Path(text).stem.replace("=", "-"), Path(text)))
    return pairs
