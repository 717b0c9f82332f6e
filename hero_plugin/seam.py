"""Run a base's own forward with some of its parts replaced, without touching the base."""

from __future__ import annotations

from typing import Any

from torch import nn

from hero_plugin.versions import is_compiling


class Seam:
    """A base's own forward, entered behind its input projections.

    ``Seam(base, input_vid_proj=First(), input_txt_proj=First())`` calls the base's forward on features that are already
    projected: exact for any base, whatever happens after its projections. It works on a view of the base that shares
    everything but the replaced parts, so the base keeps its modules, its ``state_dict`` and its forward.

    Args:
        base: the base.
        **replacements: what stands in for the submodules of these names.
    """

    def __init__(self, base: nn.Module, **replacements: nn.Module) -> None:
        self.base = base
        self.replacements = replacements
        self.view = base.__class__.__new__(base.__class__)
        self._share()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The base's forward on projected features."""
        if not is_compiling():
            self._share()  # attributes may have been set on the base since
        self.view.training = self.base.training
        return self.view.forward(*args, **kwargs)

    def _share(self) -> None:
        shared = {name: value for name, value in self.base.__dict__.items() if name != "_modules"}
        self.view.__dict__.update(shared, _modules={**self.base._modules, **self.replacements})


class First(nn.Module):
    """Stands in for a projection whose work is already done: returns its first argument."""

    def forward(self, value: Any, *rest: Any, **options: Any) -> Any:
        """value, ... -> value."""
        return value
