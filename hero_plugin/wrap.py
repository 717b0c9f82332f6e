"""Wrapping: HERO put around a model, fresh or from a file, saved, folded into one module, and taken off."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from hero_plugin.adapter import Adapter, adapter_for
from hero_plugin.config import HeroConfig, chosen_config, with_config_note, without_wrappers
from hero_plugin.model import HeroModel
from hero_plugin.named_plugins import DEFAULT_NAME, FROZEN
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
from hero_plugin.tensors import kept_modes


def wrap_model(
    base: nn.Module,
    levels: int | None = None,
    *,
    config: HeroConfig | None = None,
    adapter: Callable[[nn.Module], Grounder] | None = None,
    freeze_base: bool = False,
    start_as_base: bool = False,
    name: str = "default",
    **choices: Any,
) -> HeroModel:
    """Put HERO around a temporal sentence grounding model.

    Args:
        base: a known base (EMB, ...), a ``TwoStage``, or anything that ``adapter`` can serve.
            It is used, not copied or changed.
        levels: N, how many levels of meaning, 1 or more; None is the config's, 4 by default.
        config: every choice at once; None is ``HeroConfig()``, all four parts. Where fewer measured no worse,
            ``print(model)`` says so.
        adapter: makes a grounder of the base; None asks the known adapters.
        freeze_base: train the plug-in alone: the base's parameters take no gradient, and it stays in eval mode
            (without dropout), until ``unwrap_model``.
        start_as_base: insist that the wrapped model's predictions are the base's at the start, up to rounding; the
            default config's are (``HeroConfig.starts_as_base``), that of the paper cannot.
        name: what the plug-in is called, where there will be several: see ``HeroModel.add_plugin``.
        **choices: single fields of ``HeroConfig``, over ``config``.

    Returns:
        A ``HeroModel``: same forward, same outputs, on the base's device and in its dtype.

    Raises:
        TypeError: the base is unknown, or lacks an attribute that its adapter uses, or a choice does not exist.
        ValueError: a choice has an impossible value; ``start_as_base`` with a config that does not; ``freeze_base``
            where nothing else would learn.

    Example:
        >>> model = wrap_model(model, levels=4)
        >>> model = wrap_model(model, config=HeroConfig.paper(), mask_ratio=0.5)
    """
    if isinstance(levels, HeroConfig):
        raise TypeError("the second argument is the number of levels: wrap_model(base, config=config)")
    if config is not None and not isinstance(config, HeroConfig):
        raise TypeError(f"config must be a HeroConfig, got {type(config).__name__}: single choices are arguments")
    adapter = checked_adapter(base, adapter)
    if levels is not None:
        choices["levels"] = levels
    chosen = chosen_config(config or HeroConfig(), choices)
    if start_as_base and not chosen.starts_as_base:
        raise ValueError(f"this config does not start with the base's predictions: {'; '.join(chosen.departures)}")
    if freeze_base and not chosen.active:
        raise ValueError("freeze_base=True with HERO off leaves nothing to train: switch a part of HERO on")
    model = HeroModel(base, chosen, adapter, name)
    if freeze_base:
        model.freeze_base()
    elif base in FROZEN:
        warnings.warn(
            "this base was frozen by another wrapper, and stays so: unwrap_model(that_model) lets it learn again",
            stacklevel=2,
        )
    return model


def checked_adapter(
    base: nn.Module, adapter: Callable[[nn.Module], Grounder] | None = None
) -> Callable[[nn.Module], Grounder]:
    """Return the adapter to wrap ``base`` with: the one given, or the known one; ``TypeError`` where neither serves."""
    if not isinstance(base, nn.Module):
        raise TypeError(f"wrap_model takes a torch.nn.Module, got {type(base).__name__}")
    if isinstance(base, HeroModel):
        raise TypeError("this model already has HERO around it: unwrap_model(model) gives the base back")
    if _inner(base) is not None:
        raise TypeError(f"wrap the model itself, then {type(base).__name__}: {type(base).__name__}(wrap_model(base))")
    if adapter is None:
        return adapter_for(base)
    if not callable(adapter):
        raise TypeError(f"adapter takes a class, or a function of the base: give {type(adapter).__name__} itself")
    if isinstance(adapter, type) and issubclass(adapter, Adapter):
        adapter.check(base)
    return adapter


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the base of a wrapped model: the very object that went in, with the weights that training gave it.

    A base that was frozen learns again where it did before; its modules are in eval mode where the wrapped model is,
    else in the mode they had. To look at the base and go on, read ``model.base``. Looks through
    ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile``.
    """
    inner = hero_model(model)
    inner.unfreeze_base()
    return inner.base


def choose_level(
    model: nn.Module, score: Callable[[HeroModel], float], *, tolerance: float = 0.0
) -> dict[tuple[int, ...], float]:
    """Let one level answer where it is as good as all: about one pass of the base instead of N.

    Of the single levels the best is kept, unless all of them together are better by more than ``tolerance``. The model
    is scored in eval mode, and its modes are restored.

    Args:
        model: a trained wrapped model, also inside what torch puts around it.
        score: what to choose by, higher is better: a score on validation data, with words that training never had
            among it, and never on a test set.
        tolerance: how much of the score one level may lose against all.

    Returns:
        The score of every choice, by the levels that answered. ``model.keep_level()`` undoes the choice.

    Raises:
        ValueError: a score is NaN; then, and where ``score`` raises, the levels that answered before do so again.
    """
    inner = hero_model(model)
    before, everything = inner.config, tuple(range(inner.config.levels))
    scores: dict[tuple[int, ...], float] = {}
    try:
        with kept_modes(inner):
            inner.eval()  # in training, all levels answer
            for levels in [*((level,) for level in everything), everything]:
                scores[levels] = float(score(inner.keep_level(*levels)))
                if math.isnan(scores[levels]):
                    raise ValueError(
                        f"the score of level {', '.join(map(str, levels))} is NaN: there is nothing to choose by"
                    )
    except BaseException:
        inner.config = before
        raise
    best = max((levels for levels in scores if len(levels) == 1), key=lambda levels: scores[levels])
    inner.keep_level(*(everything if scores[everything] > scores[best] + tolerance else best))
    return scores


def export_base(model: nn.Module) -> nn.Module:
    """Return a plain module that answers as the wrapped model does with its one level: HERO folded into its base.

    A copy in eval mode, without what only training needs: the base after that level of the words and, with SGVF, its
    filter of the clips. It exports, with ``torch.export`` or to ONNX, where the base does.

    Raises:
        ValueError: several levels answer; choose one with ``keep_level``.
    """
    inner = hero_model(model)
    answering = inner.config.inference or tuple(range(inner.config.levels))
    if len(answering) != 1:
        raise ValueError(f"levels {', '.join(map(str, answering))} answer: choose one with model.keep_level(level)")
    return OneLevel(copy.deepcopy(inner)).eval()


class OneLevel(nn.Module):
    """Base after one level of HERO: same forward, same outputs. Made by ``export_base``."""

    def __init__(self, model: HeroModel) -> None:
        super().__init__()
        self.base, self.hero = model.base, model.hero
        self.hero.aggregation = self.hero.cmtr = self.hero.relevance = self.hero.ranked = None
        self.which = model.config.inference or (0,)
        self._grounder = (model.grounder,)  # in a tuple, or torch would register a base that is its own grounder

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the base's forward after its level."""
        grounder = self._grounder[0]
        pair = grounder.embed(*args, **kwargs)
        pair, words = self.hero.read(pair, self.which)
        clips = self.hero.clips(pair.video, words, pair.query_mask, self.which)
        outputs = grounder.ground(pair.at_levels(clips, words)).outputs
        return grounder.complete(outputs, pair) if hasattr(grounder, "complete") else outputs


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


def hero_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the plug-in's weights alone (``hero.``), to be put on any copy of the base with ``load_state_dict``."""
    return hero_model(model).hero_state_dict()


def hero_model(model: nn.Module) -> HeroModel:
    """Return the wrapped model inside what torch puts around it; ``TypeError`` where there is none."""
    found = find_hero_model(model)
    if found is None:
        raise TypeError(f"{type(model).__name__} has no HERO around it: it was not made by wrap_model")
    return found


def find_hero_model(model: nn.Module) -> HeroModel | None:
    """Return the wrapped model inside what torch puts around it, or None."""
    inner: Any = model
    while inner is not None and not isinstance(inner, HeroModel):
        inner = _inner(inner)
    return inner


def _inner(model: nn.Module) -> nn.Module | None:
    """Return what a parallel, averaging or compiling wrapper of torch's holds, or None."""
    names = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "AveragedModel")
    return getattr(model, "module" if type(model).__name__ in names else "_orig_mod", None)
