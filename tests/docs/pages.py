"""Pages of the documentation, and their Python."""

from __future__ import annotations

import re
from pathlib import Path

from tests.resources import REPOSITORY

DOCS = REPOSITORY / "docs"


def python_blocks(path: Path) -> list[str]:
    """Return the Python of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL)


def run(page: str, **names: object) -> dict[str, object]:
    """Execute the blocks of a page in one namespace, and return what they define."""
    blocks = python_blocks(REPOSITORY / page if page == "README.md" else DOCS / page)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names
