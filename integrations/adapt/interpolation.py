"""WiSE-FT (Wortsman et al., CVPR 2022): weights between those before and those after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def interpolate(before: Mapping[str, Any], after: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Return ``(1 - share) before + share after`` for every float tensor that both have; share 1 is ``after``."""
    return {name: _between(before.get(name), value, share) for name, value in after.items()}


def _between(old: Any, new: Any, share: float) -> Any:
    fits = isinstance(old, Tensor) and isinstance(new, Tensor) and new.is_floating_point() and old.shape == new.shape
    return old.to(new.device).lerp(new, share) if fits and share < 1 else new
