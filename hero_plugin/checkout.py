"""The subpackages of a checkout, whose folders are not nested as the installed package's are."""

from __future__ import annotations

from pathlib import Path


def beside(package: Path) -> list[str]:
    """Return where else ``hero_plugin``'s subpackages are: the checkout's top, if this is a checkout; else nowhere.

    ``adapters/`` and ``integrations/`` stand beside ``hero_plugin/`` in a checkout. Python started there finds that
    folder before an installed copy, and would miss them.
    """
    top = package.parent
    is_checkout = (top / "pyproject.toml").is_file() and (top / "adapters").is_dir()
    return [str(top)] if is_checkout and not (package / "adapters").exists() else []
