"""Patches of modules, applied the moment a module is imported, before other code can copy a name from it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import wrapt


@dataclass(frozen=True)
class Patch:
    """One name that is replaced at run time; no file changes."""

    module: str
    """Where it is defined, as it is imported; ``__main__`` is the script itself."""
    name: str
    """What it is called there; of a class, ``Class.method``."""
    replace: Callable[[Any], Any]
    """The original -> what takes its place."""
    why: str = ""

    @property
    def target(self) -> str:
        """``module.name``."""
        return f"{self.module}.{self.name}"

    def apply(self, namespace: Any) -> Callable[[], None] | None:
        """Replace the name in a module. Return a function that undoes it, or None if the module has no such name."""
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


def around(call: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return the ``replace`` of a patch after which ``call(original, ...)`` runs where ``original(...)`` did."""

    def replace(original: Any) -> Any:
        @functools.wraps(original, updated=())  # a class as well as a function
        def called(*args: Any, **kwargs: Any) -> Any:
            return call(original, *args, **kwargs)

        return called

    return replace


# Puts wrapt's finder on the import path once, so that patched() leaves the path as it found it.
wrapt.register_post_import_hook(lambda module: None, __name__)


@contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """Patch every module that is loaded inside the block, or is already; undo everything after it."""
    undo: list[Callable[[], None] | None] = []
    active = True

    def apply(patch: Patch, module: ModuleType) -> None:
        if active:  # wrapt cannot take a hook back
            undo.append(patch.apply(module))

    try:
        for patch in patches:
            if patch.module != "__main__":
                wrapt.register_post_import_hook(functools.partial(apply, patch), patch.module)
        yield
    finally:
        active = False
        while undo:
            if step := undo.pop():
                step()
