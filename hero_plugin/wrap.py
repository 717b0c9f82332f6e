"""Wrapping: one call puts HERO around a model, one takes it off."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hero_plugin.adapter import Adapter, adapter_for
from hero_plugin.config import HeroConfig, chosen_config
from hero_plugin.model import HeroModel
from hero_plugin.named_plugins import FROZEN
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
