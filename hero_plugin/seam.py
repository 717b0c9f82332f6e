"""A base's own forward with some of its parts replaced, without touching the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from hero_plugin.versions import is_compiling


class Seam:
    """A base's own forward, entered behind its input projections.

    ``Seam(base, input_vid_proj=PassThrough(), input_txt_proj=PassThrough())`` calls the base's forward on features that
    are already projected: exact for any base, whatever happens after its projections. It works on a view of the base
    that shares everything but the replaced parts, so the base keeps its modules, its ``state_dict`` and its forward.
    What the forward sets on itself (a counter, the last attention) stays with the view.

    Args:
        base: the base.
        **replacements: what stands in for the parts of these names: a module for a submodule, any other callable for
            a method. A part of a part has a dotted name: ``Seam(base, **{"transformer.decoder": PassThrough()})``.
    """

    def __init__(self, base: nn.Module, **replacements: Any) -> None:
        self.base = base
        self.replacements = replacements
        self.view = _blank(base)
        _share(self.base, self.view, self.replacements)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The base's forward on projected features."""
        if not is_compiling():
            _share(self.base, self.view, self.replacements)  # attributes may have been set on the base since
        self.view.training = self.base.training
        return self.view.forward(*args, **kwargs)


class PassThrough(nn.Module):
    """Stands in for a projection whose work is already done: returns its first argument."""

    def forward(self, value: Any, *rest: Any, **options: Any) -> Any:
        """value, ... -> value."""
        return value


First = PassThrough  # the earlier name


def _blank(module: nn.Module) -> nn.Module:
    # Without __init__, which would make new parameters and whose arguments nobody knows here. _share fills it.
    return module.__class__.__new__(module.__class__)


def _share(module: nn.Module, view: nn.Module, replacements: Mapping[str, Any]) -> nn.Module:
    """Make ``view`` all that ``module`` is, but for the replacements.

    The view gets the entries of the module's ``__dict__``, so it holds the very same parameter and buffer dicts,
    hooks and attributes. Only ``_modules`` is a new dict, or a replacement would show up in the base.
    """
    parts: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = {}
    for path, part in replacements.items():
        name, _, rest = path.partition(".")
        if rest:
            deeper.setdefault(name, {})[rest] = part
        else:
            parts[name] = part
    for name, inner in deeper.items():
        owner = getattr(module, name)
        parts[name] = _share(owner, _blank(owner), inner)
    modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    # In the view's own __dict__, a replaced method is found before that of the class.
    methods = {name: part for name, part in parts.items() if name not in modules}
    shared = {name: value for name, value in module.__dict__.items() if name != "_modules"}
    view.__dict__.update(shared, _modules={**module._modules, **modules}, **methods)
    return view
