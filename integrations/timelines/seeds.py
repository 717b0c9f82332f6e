"""One independent stream of random numbers per name, whatever else is drawn, in whatever order."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator"]


def generator(seed: int, *names: str) -> np.random.Generator:
    """The generator that (seed, names) stands for: same arguments, same numbers, on every machine."""
    digest = hashlib.blake2b("\0".join(names).encode("utf-8"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int.from_bytes(digest, "little")])))
