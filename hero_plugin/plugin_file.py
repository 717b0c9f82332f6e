"""Plug-ins taken from a model, saved as files, and put on a base."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from hero_plugin.config import with_config_note, without_wrappers
from hero_plugin.model import HeroModel
from hero_plugin.named_plugins import DEFAULT_NAME
from hero_plugin.plugin import (
    Fingerprint,
    Plugin,
    PluginError,
    base_weights,
    files_of,
    find_folder,
    forms,
    read_plugin,
    values_of,
)
from hero_plugin.protocol import Grounder
from hero_plugin.wrap import checked_adapter, find_hero_model, hero_model, wrap_model


def save_plugin(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the plug-in of a wrapped model: its weights alone, with its config and its base's fingerprint.

    The file is small, and loads with ``torch.load(path, weights_only=True)`` as a dict of ``hero`` (weights under
    ``hero.``), ``config``, ``base`` and ``version``. A name that ends in ``.safetensors`` makes it one, with the rest
    as JSON in its metadata.

    Args:
        model: made by ``wrap_model``, also inside ``DistributedDataParallel`` or ``torch.compile``.
        path: of the file; its folder is made where absent.
    """
    hero_model(model).as_plugin().save(path)


def load_plugin(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    adapter: Callable[[nn.Module], Grounder] | None = None,
    strict: bool = True,
    name: str | None = None,
) -> HeroModel:
    """Put a plug-in on a base.

    Args:
        model: a base, which gets HERO around it with the checkpoint's config; or a wrapped model, whose own config
            must say the same of everything that decides what HERO computes.
        path: what ``save_plugin`` wrote.
        adapter: as in ``wrap_model``, for a bare base.
        strict: False takes a base of another class with a warning, a fork under another name, say.
        name: what the plug-in is called. On a wrapped model a new name adds it beside those that are there, with the
            file's config, and ``set_active(name)`` lets it answer; None loads into the active one.

    Returns:
        The wrapped model: ``model`` itself if it was wrapped already, without what torch may have put around it. A
        base that differs in what the plug-in does not depend on (its vocabulary, the width of its input features) is a
        warning that says what; so is one of other weights than those that the plug-in was trained with.

    Raises:
        PluginError: the file is not a plug-in's checkpoint, or was written for another base or another config; the
            message says what differs and what to do.
        TypeError: as ``wrap_model``.
        ValueError: a plug-in of this name is there and not active.
    """
    return _put_on(model, read_plugin(path), str(path), adapter, strict, name)


def from_pretrained(
    base: nn.Module,
    folder_or_id: str | os.PathLike[str],
    *,
    adapter: Callable[[nn.Module], Grounder] | None = None,
    strict: bool = True,
    name: str | None = None,
    load_base: bool | None = None,
    revision: str | None = None,
) -> HeroModel:
    """Put on a base what ``model.save_pretrained`` wrote: the plug-in, and the base's weights where there are some.

    Args:
        base: a base or a wrapped model, as ``load_plugin`` takes.
        folder_or_id: a folder here, or an id on the Hugging Face hub, such as ``"someone/hero-qd-detr"``; the hub takes
            ``pip install "hero-plugin[hub]"``.
        adapter: as in ``load_plugin``.
        strict: likewise.
        name: likewise.
        load_base: False leaves the base's weights as they are. None loads those of the folder into a bare base.
        revision: of the hub's repository.

    Raises:
        PluginError: there is no such folder, it does not fit, or its weights of the base would replace those that
            another plug-in stands on.
    """
    folder = find_folder(folder_or_id, revision)
    weights = None if load_base is False else base_weights(folder)
    wrapped = find_hero_model(base)
    bare = base if wrapped is None else wrapped.base
    if weights is not None:
        if wrapped is not None and load_base is None:
            raise PluginError(
                f"{folder_or_id}: holds weights of the base, which would replace those that the model's plug-ins stand "
                "on: pass load_base=True to replace them, load_base=False to keep them"
            )
        here, there = forms(bare.state_dict()), forms(weights)
        wrong = [entry for entry in {**here, **there} if here.get(entry) != there.get(entry)]
        if wrong:
            raise PluginError(
                f"{folder_or_id}: its weights of the base do not fit: {', '.join(wrong[:3])} "
                f"{'differs' if len(wrong) == 1 else 'differ'}; load_base=False leaves them out"
            )
    file = files_of(folder, "plugin")[0]
    model = _put_on(base, read_plugin(file), str(file), adapter, strict, name, weights)
    if weights is not None:
        model.base.load_state_dict(weights)
    return model


def _put_on(
    model: nn.Module,
    plugin: Plugin,
    source: str,
    adapter: Callable[[nn.Module], Grounder] | None,
    strict: bool,
    name: str | None,
    weights: Mapping[str, Tensor] | None = None,
) -> HeroModel:
    """Put a plug-in of ``source`` on a base, whose own weights will be ``weights``, where they are given."""
    wrapped = find_hero_model(model)
    base = model if wrapped is None else wrapped.base
    grounder = checked_adapter(model, adapter)(model) if wrapped is None else wrapped.grounder
    here = Fingerprint.of(base, grounder)
    here = here if weights is None else replace(here, values=values_of(weights))
    check_base(here, plugin.base, source, strict=strict)
    if wrapped is None:
        wrapped = wrap_model(model, config=plugin.config, adapter=adapter, name=name or DEFAULT_NAME)
        wrapped.load_state_dict(with_config_note(plugin.hero, plugin.config))
        return wrapped
    if name is not None and name != wrapped.active_plugin:
        weights = {entry.removeprefix("hero."): value for entry, value in without_wrappers(plugin.hero).items()}
        wrapped.add_plugin(name, plugin.config)
        aside: Any = wrapped._plugins[name]  # not set_active: the active one keeps its gradients and its last forward
        try:
            aside[0].load_state_dict(weights)
        except BaseException:  # nothing untrained may stay behind under the name
            wrapped.remove_plugin(name)
            raise
        return wrapped
    if changed := wrapped.config.differences(plugin.config, wrapped.grounder):
        lines = [f"  {field} is {mine!r} here, {its!r} in the checkpoint\n" for field, (mine, its) in changed.items()]
        raise PluginError(
            f"{source}: this plug-in was made with another config:\n{''.join(lines)}"
            "Give load_plugin the base alone, load_plugin(unwrap_model(model), path), and it is wrapped with the "
            "checkpoint's config"
        )
    wrapped.load_state_dict(with_config_note(plugin.hero, plugin.config))
    return wrapped


def check_base(here: Fingerprint, there: Fingerprint, source: str, *, strict: bool = True) -> None:
    """Raise ``PluginError`` where a plug-in of ``there`` has no place on ``here``; warn of what else differs."""
    obstacles, differences = here.obstacles(there), here.differences(there)
    impossible = None not in (here.dim, there.dim) and here.dim != there.dim
    details = "\n".join(f"  {line}" for line in [*obstacles, *differences])
    if impossible or (obstacles and strict):
        advice = "" if impossible else "; or, if this is the same base under another name, pass strict=False"
        raise PluginError(
            f"{source}: this plug-in was trained on another base:\n{details}\n"
            f"Put it on a copy of the base that it was trained on{advice}"
        )
    if details:
        warnings.warn(
            f"{source}: the base is not quite the one that this plug-in was trained on:\n{details}\n"
            "The plug-in fits, and is loaded.",
            stacklevel=4,
        )
    other, common = here.other_values(there)
    if other:
        warnings.warn(
            f"{source}: the base has other weights than the one that this plug-in was trained on, in {other} of "
            f"{common} tensors. The plug-in is loaded, but fits the weights that it was trained with: if the base "
            "learned beside it, load that base's weights, too. model.save_pretrained(folder) keeps both",
            stacklevel=4,
        )
