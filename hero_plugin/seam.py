"""Run a base's own forward with some of its parts replaced, without touching the base."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def lifted(base: nn.Module, **replacements: Callable[..., Any]) -> nn.Module:
    """A view of ``base`` whose named submodules are replaced; everything else is shared, nothing is copied.

    ``lifted(base, input_vid_proj=first, input_txt_proj=first)(...)`` is the base's own forward on features that are
    already projected: exact for any base, whatever happens after its projections. The view is made anew for each
    call, so the base keeps its parameters, its ``state_dict`` and its place in other threads.
    """
    view = base.__class__.__new__(base.__class__)
    view.__dict__ = {**base.__dict__, "_modules": {**base._modules, **replacements}}
    return view


def first(value: Any, *rest: Any, **options: Any) -> Any:
    """Stands in for a projection whose work is already done."""
    return value
