"""Imports from a clone of another repository that leave no trace in ``sys.modules``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any


@contextmanager
def clone_imports(clone: Path, stand_ins: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[None]:
    """Put the clone first on the import path inside the block; everything is undone after it.

    Meanwhile, modules of other clones that have the same names are out of the way.

    Args:
        clone: the folder.
        stand_ins: attributes of each module that takes the place of one that the clone imports and this machine may
            lack, by the module's name.
    """
    stand_ins = stand_ins or {}
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    theirs = {entry.stem for entry in clone.iterdir()} | {name.partition(".")[0] for name in stand_ins}

    def take_out() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in theirs}

    hidden = take_out()
    for name, attributes in stand_ins.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(attributes)
    sys.path.insert(0, str(clone))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        take_out()
        sys.modules.update(hidden)
        importlib.invalidate_caches()
