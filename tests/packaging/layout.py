"""The package as the wheel has it, for tools that read code without running it.

``adapters/`` and ``integrations/`` stand beside ``hero_plugin/`` in a checkout and install inside it, where linters
and type checkers look for them. ``python -m tests.packaging.layout FOLDER`` copies the three there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.resources import REPOSITORY


def copy_layout(folder: Path) -> Path:
    """Copy the package into ``folder/hero_plugin`` and return that folder."""
    package = folder / "hero_plugin"
    shutil.rmtree(package, ignore_errors=True)
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "hero_plugin", package, ignore=without_caches)
    for name in ("adapters", "integrations"):
        shutil.copytree(REPOSITORY / name, package / name, ignore=without_caches)
    return package


if __name__ == "__main__":
    copy_layout(Path(sys.argv[1]))
