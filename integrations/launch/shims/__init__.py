"""What keeps old code running on today's libraries: each shim is small, named, and applied only where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from hero_plugin.integrations.launch.patches import Patch


@dataclass(frozen=True)
class Shim:
    """A fault of old code on current libraries, and its repair."""

    name: str
    symptom: str
    """What happens without it."""
    repair: str
    """What it does about it."""
    needed: Callable[[], bool]
    """Whether the fault is present on this machine."""
    patches: tuple[Patch, ...] = ()
    stand_ins: Callable[[], dict[str, ModuleType]] = field(default=dict)
    """Modules that take the place of missing ones, by name."""


def present(shims: Sequence[Shim]) -> list[Shim]:
    """Those whose fault is present here."""
    return [shim for shim in shims if shim.needed()]
