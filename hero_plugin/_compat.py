"""Differences between versions of torch, and between a checkout and an installed package.

What the rest of the package would otherwise have to ask in several places is asked here.
"""

from __future__ import annotations

from pathlib import Path

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


def checkout_folders(package: Path) -> list[str]:
    """Return where else ``hero_plugin``'s subpackages are: the checkout's top, if this is a checkout; else nowhere.

    ``adapters/`` and ``integrations/`` stand beside ``hero_plugin/`` in a checkout. Python started there finds that
    folder before an installed copy, and would miss them.
    """
    top = package.parent
    is_checkout = (top / "pyproject.toml").is_file() and (top / "adapters").is_dir()
    return [str(top)] if is_checkout and not (package / "adapters").exists() else []
