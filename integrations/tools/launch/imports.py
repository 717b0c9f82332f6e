"""What a script's imports lack, found before it runs."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from hero_plugin.integrations.tools.launch.run import Script

PACKAGES = {"sklearn": "scikit-learn", "yaml": "pyyaml", "cv2": "opencv-python", "PIL": "pillow"}
"""Modules whose package has another name."""


def lacking(script: Script) -> list[str]:
    """Return the modules at which a script would stop, one after the other, because they are not installed.

    Followed are the imports that always run, through the repository's own files, of which none is run: one inside a
    function, an ``if`` or a ``try`` may have its reasons.
    """
    todo, seen, found = [script.path], set(), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name, folders in imports(path, script.search_path):
            own = files(name, folders)
            todo += [each for each in own or () if each.suffix == ".py"]
            top = name.partition(".")[0]
            if own is None and top not in sys.modules and importlib.util.find_spec(top) is None:
                found.add(top)
    # A script may add a folder of the repository to its path.
    inside = {name for name in found for end in (".py", "/*.py") if any(script.repository.rglob(name + end))}
    return sorted(found - inside)


def imports(path: Path, top: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield what the top level of a file imports, by dotted name, and the folders where its first part may be."""
    try:
        statements = ast.parse(path.read_bytes()).body
    except SyntaxError:  # the script's own error, once it gets there
        return
    for each in statements:
        if isinstance(each, ast.Import):
            yield from ((alias.name, top) for alias in each.names)
        elif isinstance(each, ast.ImportFrom):
            folders = [str(path.parents[each.level - 1])] if each.level else top
            # What is taken from a package may be a module of it.
            yield from ((f"{each.module}.{alias.name}".removeprefix("None."), folders) for alias in each.names)


def files(name: str, folders: Sequence[str]) -> list[Path] | None:
    """Return the files that importing a dotted name runs, or None where it is not in these folders."""
    found: list[Path] = []
    for place, part in enumerate(name.split(".")):
        spec = PathFinder.find_spec(part, folders)
        if spec is None:
            return found if place else None
        found += [Path(spec.origin)] if spec.origin else []
        folders = list(spec.submodule_search_locations or ())
    return found


def advice(code: str, modules: Iterable[str]) -> str:
    """Say how to install what a repository's code needs."""
    modules = list(modules)
    packages = " ".join(PACKAGES.get(name, name) for name in modules)
    return f"{code}'s code needs {', '.join(modules)}, not installed here: pip install {packages}"
