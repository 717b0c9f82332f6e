"""Differences between versions of torch, which the rest of the package would have to ask about in several places."""

from __future__ import annotations

import torch
from packaging.version import Version

OLDEST_TORCH = "2.1"


def check_torch(installed: str = torch.__version__) -> None:
    """Raise ``ImportError`` unless torch is 2.1 or later.

    >>> check_torch("1.13.1+cu117")
    ImportError: hero-plugin needs torch 2.1 or later, found 1.13.1+cu117: pip install "torch>=2.1"
    """
    if Version(installed) < Version(OLDEST_TORCH):
        raise ImportError(
            f'hero-plugin needs torch {OLDEST_TORCH} or later, found {installed}: pip install "torch>={OLDEST_TORCH}"'
        )


def is_compiling() -> bool:
    """Return whether ``torch.compile`` is tracing this call. Torch before 2.3 cannot say: then no."""
    return getattr(torch.compiler, "is_compiling", bool)()


check_torch()
