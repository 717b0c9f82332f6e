"""One call puts HERO around a model, one takes it off."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from hero_plugin.adapter import adapter_for
from hero_plugin.config import HeroConfig
from hero_plugin.model import HeroModel
from hero_plugin.protocol import Grounder


def wrap_model(
    base: nn.Module,
    levels: int | None = None,
    *,
    config: HeroConfig | None = None,
    adapter: Callable[[nn.Module], Grounder] | None = None,
    **choices: Any,
) -> HeroModel:
    """Put HERO around a temporal sentence grounding model.

    Args:
        base: a known base (EMB, ...), a :class:`~hero_plugin.TwoStage`, or anything that ``adapter`` can serve.
            It is used, not copied or changed.
        levels: N, how many levels of meaning (1, 2, 4, 8); None is the config's, 4 by default.
        config: every choice at once; None is ``HeroConfig()``, the recommended one.
        adapter: makes a grounder of the base; None asks the known adapters.
        **choices: single fields of :class:`~hero_plugin.HeroConfig`, over ``config``.

    Returns:
        A :class:`~hero_plugin.HeroModel`: same forward, same outputs, on the base's device and in its dtype.

    Raises:
        TypeError: the base is unknown, or lacks an attribute that its adapter uses, or a choice does not exist.
        ValueError: a choice has an impossible value.

    Example:
        >>> model = wrap_model(model, levels=4)
        >>> model = wrap_model(model, config=HeroConfig.paper(), mask_ratio=0.5)
    """
    if not isinstance(base, nn.Module):
        raise TypeError(f"wrap_model takes a torch.nn.Module, got {type(base).__name__}")
    if isinstance(base, HeroModel):
        raise TypeError("this model already has HERO around it: unwrap_model(model) gives the base back")
    if _inner(base) is not None:
        raise TypeError(f"wrap the model itself, then {type(base).__name__}: {type(base).__name__}(wrap_model(base))")
    if levels is not None:
        choices["levels"] = levels
    return HeroModel(base, _chosen(config or HeroConfig(), choices), adapter or adapter_for(base))


def unwrap_model(model: nn.Module) -> nn.Module:
    """The base of a wrapped model: the very object that went in, unchanged but for what training did to its weights.

    Looks through ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile``.
    """
    return _hero_model(model).base


def hero_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The plug-in's weights alone (``hero.``), to be put on any copy of the base with ``load_state_dict``."""
    return _hero_model(model).hero_state_dict()


def _hero_model(model: nn.Module) -> HeroModel:
    inner: Any = model
    while not isinstance(inner, HeroModel):
        inner = _inner(inner)
        if inner is None:
            raise TypeError(f"{type(model).__name__} has no HERO around it: it was not made by wrap_model")
    return inner


def _inner(model: nn.Module) -> nn.Module | None:
    """What a parallel or compiled wrapper of torch's holds."""
    parallel = type(model).__name__ in ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
    return getattr(model, "module" if parallel else "_orig_mod", None)


def _chosen(config: HeroConfig, choices: dict[str, Any]) -> HeroConfig:
    names = [field.name for field in fields(HeroConfig)]
    for name in choices:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f". Choices: {', '.join(names)}"
            raise TypeError(f"HeroConfig has no choice {name!r}{hint}")
    return replace(config, **choices)
