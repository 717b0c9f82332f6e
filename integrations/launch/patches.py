"""Changing what a module defines the moment it is imported, before anybody can take a copy of it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Patch:
    """One thing that is replaced at run time; no file changes."""

    module: str
    """Where it is defined, as it is imported; ``__main__`` is the script itself."""
    name: str
    """What it is called there; of a class, ``Class.method``."""
    replace: Callable[[Any], Any]
    """The original -> what takes its place."""
    why: str

    @property
    def target(self) -> str:
        return f"{self.module}.{self.name}"

    def apply(self, namespace: Any) -> Callable[[], None] | None:
        """Replace it in a module. Returns how to undo it; None where the module has no such thing."""
        *owners, last = self.name.split(".")
        owner = namespace
        for each in owners:
            owner = getattr(owner, each, None)
        if not hasattr(owner, last):
            return None
        own = last in vars(owner)
        original = vars(owner)[last] if own else getattr(owner, last)
        setattr(owner, last, self.replace(original))
        return lambda: setattr(owner, last, original) if own else delattr(owner, last)


@contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """Inside the block, every module that is loaded, or is already, has its patches; all is undone after."""
    finder = _Finder(patches)
    sys.meta_path.insert(0, finder)
    try:
        for name in finder.by_module:
            if name in sys.modules and name != "__main__":
                finder.apply(sys.modules[name])
        yield
    finally:
        sys.meta_path.remove(finder)
        finder.undo()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules to patch as the others would, and patches them once they are executed."""

    def __init__(self, patches: Sequence[Patch]) -> None:
        self.by_module: dict[str, list[Patch]] = {}
        for patch in patches:
            self.by_module.setdefault(patch.module, []).append(patch)
        self._undo: list[Callable[[], None]] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self.by_module:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, self)
                return spec
        return None

    def apply(self, module: ModuleType) -> None:
        for patch in self.by_module[module.__name__]:
            undo = patch.apply(module)
            if undo is not None:
                self._undo.append(undo)

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, finder: _Finder) -> None:
        self.loader, self.finder = loader, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.finder.apply(module)

    def __getattr__(self, name: str) -> Any:  # get_source for tracebacks, and whatever else is asked of loaders
        return getattr(self.loader, name)
