"""The wrapped model: a base with HERO around it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hero_plugin.adapter import expect_no_parameters
from hero_plugin.aggregation import WeightedAggregation, check_kinds, check_names
from hero_plugin.cmtr import CMTR
from hero_plugin.config import LIVE_FIELDS, NOTE, HeroConfig, config_of, without_wrappers
from hero_plugin.hem import HEM
from hero_plugin.levels import level_numbers, map_tensors, stack, unfold
from hero_plugin.losses import LastForward, Oversight, PairRelevance, RankedRelevance, hero_losses, loss_settings
from hero_plugin.named_plugins import DEFAULT_NAME, NamedPlugins
from hero_plugin.protocol import Grounder, Grounding, NoClipScore, Pair
from hero_plugin.sgvf import SGVF
from hero_plugin.tensors import KeepStatistics, expect_shape, is_compiling, mean_of_words


class HeroModel(NamedPlugins):
    """``base`` with HERO: the same forward, the same outputs. Made by ``wrap_model``.

    Parameters of the plug-in are under ``hero.``, the base's under ``base.``; attributes that are not here come from
    the base. While training, the dict that a base returns (or the first one in its tuple) gets one more key,
    ``"hero"``, which ``wrap_criterion`` reads.

    Attributes:
        base: the base itself, not a copy.
        hero: the plug-in's modules.
        config: the ``HeroConfig``.
    """

    hero: Hero
    _runs = 0  # in training, since the losses were last computed
    _losses: Mapping[str, Tensor] = {}  # the last ones computed, detached

    def __init__(
        self,
        base: nn.Module,
        config: HeroConfig,
        adapter: Callable[[nn.Module], Grounder],
        name: str = DEFAULT_NAME,
    ) -> None:
        super().__init__()
        self._plugins = {name: None}
        self.config = config
        self.adapter = adapter
        self.base = base
        # In a tuple, or torch would register a base that is its own grounder a second time.
        self._grounder = (base, adapter(base))
        check_kinds(self._grounder[1].kinds)
        expect_no_parameters(self._grounder[1], base)
        self.hero = self._make_hero(config)
        self.last_forward = LastForward()
        self._oversight = Oversight()
        self.training = base.training  # not train(): parts of the base may be in another mode on purpose
        self.hero.train(base.training)

    def _make_hero(self, config: HeroConfig) -> Hero:
        """Make a fresh plug-in, on the base's device and in its dtype."""
        config.expect_fit(self.grounder)
        # Those that learn come first: a frozen backbone may be in another precision than what HERO meets.
        learning_first = sorted(self.base.parameters(), key=lambda parameter: not parameter.requires_grad)
        like = next((p for p in learning_first if p.is_floating_point()), torch.empty(0))
        # Whatever torch's default device is; on the CPU, where a seed gives the same weights for every device.
        with torch.device("meta" if like.is_meta else "cpu"):
            hero = Hero(self.grounder.dim, config, getattr(self.grounder, "relevance_ranks", False))
        return hero.to(like.device, like.dtype)

    def _use(self, hero: Hero, config: HeroConfig) -> None:
        """Let this plug-in be the model's own."""
        self.hero, self.__dict__["config"] = hero, config  # past __setattr__: its modules were made by this one
        self._settings = loss_settings(config)
        self.last_forward, self._oversight, self._runs, self._losses = LastForward(), Oversight(), 0, {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the base's forward with HERO: same arguments, same output type, keys and shapes."""
        if not self.hero_active:
            return self.base(*args, **kwargs)
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        if any(getattr(self.base, kind) for kind in hooks):  # called as without HERO: with these arguments and outputs
            return self._run_method(self.base, *args, **kwargs)
        return self._ground(*args, **kwargs)

    def _ground(self, *args: Any, **kwargs: Any) -> Any:
        last = self.last_forward = LastForward()  # frees the graph of the forward before
        grounder, hero = self.grounder, self.hero

        # The base's input projections, then every level of the words, and the clips as each level sees them.
        pair = grounder.embed(*args, **kwargs)
        self._oversight.see_masks(pair.video_mask, pair.query_mask)
        which = None if self.training else self.config.inference
        pair, words = hero.read(pair, which)
        clips = hero.clips(pair.video, words, pair.query_mask, which)
        entry = next((each for each in (clips, words) if each.requires_grad), None)

        # The rest of the base, for all these levels; their outputs become one.
        groundings = self._run(grounder.ground, pair, clips, words)
        kinds = grounder.kinds
        check_names(groundings[0].outputs, kinds, getattr(grounder, "optional_outputs", ()), hero.levels > 1)
        levels = self._join([one.outputs for one in groundings], words, kinds)
        if self.config.level_weights == "query":
            last.query = mean_of_words(pair.query, pair.query_mask)
        outputs = hero.combine(levels, kinds, which, last.query)
        if hasattr(grounder, "complete"):
            outputs = grounder.complete(outputs, pair)

        # What the losses need: the clips' relevance, and while training that under masked words.
        last.video_mask = pair.video_mask
        last.relevance = self._relevance(pair, clips, words, groundings, which)
        if self.training and hero.cmtr is not None:
            words, _ = hero.cmtr(words, pair.query_mask)
            clips = hero.clips(pair.video, words, pair.query_mask)
            with KeepStatistics(self.base):
                last.masked_relevance = self._relevance(pair, clips, words)
        if self.training:
            if torch.is_grad_enabled() and not is_compiling():
                self._runs += 1
            for part in outputs if isinstance(outputs, tuple) else (outputs,):
                if isinstance(part, dict):
                    part["hero"] = {**last.tensors(), "settings": {self._settings: None}}
                    break
            if entry is not None and not is_compiling() and any(p.requires_grad for p in hero.parameters()):
                relevances = (last.relevance, last.masked_relevance) if any(self.config.loss_weights.values()) else ()
                losses = [each for each in relevances if each is not None and each.requires_grad]
                self._oversight.watch(self.base, hero, entry, losses)
        return outputs

    def _apply(self, *args: Any, **kwargs: Any) -> HeroModel:
        super()._apply(*args, **kwargs)
        for aside in filter(None, self._plugins.values()):
            aside[0]._apply(*args, **kwargs)
        return self

    def _run(self, stage: Callable[[Pair], Any], pair: Pair, clips: Tensor, words: Tensor) -> list[Any]:
        """Return what ``stage`` gives: of all levels in one batch or, to spare memory, of each by itself."""
        if not (self.config.checkpoint and self.training and torch.is_grad_enabled()):
            return [stage(pair.at_levels(clips, words, same_video=self.hero.sgvf is None))]
        # The backward then recomputes one level at a time, and holds no more than that.
        levels = (pair.at_levels(*level) for level in zip(clips.split(1), words.split(1), strict=True))
        # Nor are running statistics updated again; the compiler, which knows no such context, recomputes no update.
        again: Any = {} if is_compiling() else {"context_fn": lambda: (nullcontext(), KeepStatistics(self.base))}
        return [checkpoint(stage, level, use_reentrant=False, **again) for level in levels]

    def _join(self, results: list[Any], words: Tensor, kinds: Mapping[str, str] | None = None) -> Any:
        """Return (N, B, ...) of what ``_run`` returned for words (N, B, L, D)."""
        levels, batch = words.shape[:2]
        by_row = self.config.level_weights == "query"
        if len(results) > 1:
            return stack(results, kinds, by_row=batch if by_row else None)
        return unfold(results[0], levels, kinds, batch, getattr(self.grounder, "part_of_batch", ()), by_row)

    def _relevance(
        self,
        pair: Pair,
        clips: Tensor,
        words: Tensor,
        groundings: list[Grounding] | None = None,
        which: Sequence[int] | None = None,
    ) -> Tensor:
        """Return relevance logits (B, T), combined over levels: the pair head's, or the base's clip scores.

        Without ``groundings``, whose scores there are already, the base runs once more, as far as its scores need.
        """
        if self.hero.relevance is not None:
            relevance = self.hero.relevance(clips, words, pair.query_mask)
        elif groundings is None:
            relevance = self._join(self._run(self.grounder.relate, pair, clips, words), words)
        elif any(one.relevance is None for one in groundings):
            what = f"{type(self.base).__name__} has no clip score to use as relevance"
            raise NoClipScore(f"{what}: wrap it with relevance='pair', or let ground give one (TwoStage's relevance)")
        else:
            relevance = self._join([one.relevance for one in groundings], words)
        combined = self.hero.combine(relevance, {}, which, self.last_forward.query)
        if combined.shape != pair.video_mask.shape:  # (B, T, 1) would spread over the mask's axes, often without error
            raise ValueError(
                f"{type(self.base).__name__}'s clip scores are {tuple(combined.shape)} for a video mask of "
                f"{tuple(pair.video_mask.shape)}: its adapter's ground and relate return one score a clip, (B, T); or "
                "wrap it with relevance='pair'"
            )
        return combined if self.hero.ranked is None else self.hero.ranked(combined, pair.video_mask)

    @property
    def relevance(self) -> Tensor | None:
        """Relevance logits (B, T) of the last forward with HERO, combined over levels; None before any."""
        return self.last_forward.relevance

    def train(self, mode: bool = True) -> HeroModel:
        """Set the mode, as of every module; a frozen base stays in eval mode."""
        super().train(mode)
        if self._frozen is not None and not self._frozen.over:
            self._frozen.keep_in_eval(self.base, mode)
        return self

    def level_weights(self) -> Tensor:
        """Return how much each level counts in the outputs: (N,); 0 for one that does not answer in this mode.

        Where it depends on the query, the mean over those of the last forward.
        """
        if self.hero.aggregation is None:
            return torch.ones(1)
        which = None if self.training else self.config.inference
        weights = self.hero.aggregation.weights(which, self.last_forward.query)
        weights = weights.mean(-1) if weights.ndim > 1 else weights
        if which is None:
            return weights
        shares = weights.new_zeros(self.config.levels)
        shares[list(which)] = weights if len(which) > 1 else 1.0
        return shares

    def keep_level(self, *levels: int | Sequence[int]) -> HeroModel:
        """Let these levels alone answer outside training, their weights renormalised; without arguments, all.

        One level costs about one pass of the base instead of N. Training goes on with all of them. The choice is part
        of the config, so that checkpoints and plug-in files carry it.

        Args:
            *levels: from 0, the query as it is, to N - 1; or one sequence of them.

        Raises:
            ValueError: there is no such level.
        """
        chosen: Any = level_numbers(levels)
        if len(levels) == 1 and chosen is levels:  # one sequence of them
            chosen = level_numbers(levels[0])
        self.config = replace(self.config, inference=chosen if levels else None)
        return self

    def compute_hero_losses(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the HERO losses of the last forward for labels (B, T), 1/True for clips inside the moment.

        Not yet weighted: ``loss_relevance`` and, if masked words were used, ``loss_consistency``; empty with HERO off.
        """
        if not self.hero_active:
            return {}
        last = self.last_forward
        if last.relevance is None or last.video_mask is None:
            raise RuntimeError("the HERO losses are those of the last forward: call the model before its losses")
        learnt = any(each is not None and each.requires_grad for each in (last.relevance, last.masked_relevance))
        if self._runs and not learnt and torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            raise RuntimeError(
                "the model ran without gradients after its run in training, and HERO's losses would be those of that "
                "run: compute them before it, or run it on a copy of the model"
            )
        losses = hero_losses(last.relevance, last.masked_relevance, labels, last.video_mask, *self.config.divergence)
        self._oversight.see_labels(labels, last.video_mask)
        if self._runs > 1:
            warnings.warn(
                f"the model has run {self._runs} times in training since HERO's losses were last computed: these are "
                "of the last run alone. Compute them after each run, with its own labels",
                stacklevel=2,
            )
        self._runs = 0
        self._losses = {name: loss.detach() for name, loss in losses.items()}
        return losses

    def weighted_hero_loss(self, labels: Tensor) -> Tensor | float:
        """Return ``lambda_1 * L_RS + lambda_2 * L_CL`` of the last forward; 0 with HERO off."""
        weights = self.config.loss_weights
        return sum((weights[name] * loss for name, loss in self.compute_hero_losses(labels).items()), start=0.0)

    def hero_losses(self) -> dict[str, Tensor]:
        """Return what ``compute_hero_losses`` last returned, detached, for logs."""
        return dict(self._losses)

    def map_last_forward(self, function: Callable[[Tensor], Tensor]) -> None:
        """Replace by ``function(tensor)`` what the last forward left for the losses, each (B, T).

        For a training whose processes run parts of a batch, and compute the losses of all of it.
        """
        mapped: dict[str, Any] = {name: function(tensor) for name, tensor in self.last_forward.tensors().items()}
        self.last_forward = replace(self.last_forward, **mapped)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a checkpoint of the whole model, of the plug-in alone (``hero.``), or of the bare base.

        Which levels answer (``keep_level``) is taken over, where the checkpoint says it.

        Raises:
            RuntimeError: the weights do not fit, or the model that they come from had another config.
        """
        there = config_of(state_dict)
        if there is not None and (wrong := self.config.contradiction(there, self.grounder)):
            if strict:
                raise RuntimeError(wrong)
            warnings.warn(wrong, stacklevel=2)
        state_dict = without_wrappers(state_dict)
        prefixes = {name.split(".", 1)[0] for name in state_dict}  # a bare base may have a part called base, too
        own = prefixes == {"base"} and state_dict.keys() <= self.base.state_dict().keys()
        part: nn.Module = self
        if prefixes == {"hero"} or not state_dict:  # with HERO off, the plug-in's checkpoint is empty
            part, state_dict = self.hero, {name.removeprefix("hero."): value for name, value in state_dict.items()}
        elif own or not prefixes <= {"hero", "base"}:
            part = self.base
        load = super().load_state_dict if part is self else part.load_state_dict
        # A base that overrides load_state_dict may not know ``assign``.
        loaded = load(state_dict, strict=strict, assign=True) if assign else load(state_dict, strict=strict)
        self._take_inference(there)
        return loaded

    def _take_inference(self, config: HeroConfig | None) -> None:
        """Take over from the config of loaded weights which levels answer: it was chosen for those weights."""
        if config is not None and config.levels == self.config.levels:
            self.config = replace(self.config, inference=config.inference)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *rest: Any) -> None:
        if prefix and NOTE in local_metadata:  # this model is part of another, which loads it
            there = HeroConfig.from_dict(local_metadata[NOTE])
            # The shapes may fit all the same, and the answers would be others.
            if wrong := self.config.contradiction(there, self.grounder):
                rest[-1].append(wrong)
            self._take_inference(there)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if (metadata := getattr(destination, "_metadata", None)) is not None:
            metadata.setdefault(prefix[:-1], {})[NOTE] = self.config.to_dict()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Only what is not here gets this far. Before __init__, or while a copy is made, there is no base yet:
            # everything is read from __dict__, or the look-up would call itself.
            modules = self.__dict__.get("_modules") or {}
            if "base" not in modules:
                raise
            # A base that is its own grounder may have a ``methods`` of its own, which is not an adapter's.
            _, grounder = self.__dict__.get("_grounder", (None, None))
            extended = {} if grounder is modules["base"] else getattr(grounder, "methods", {})
            if name in extended:
                return MethodType(extended[name], self)
            found = getattr(modules["base"], name)
            method = found.func if isinstance(found, partial) else found  # a partialmethod
            own = isinstance(method, MethodType) and method.__self__ is modules["base"]
            return update_wrapper(partial(self._call_method, found), found) if own and self.config.active else found

    def _call_method(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a method of the base's with HERO, also what it leaves to an iterator."""
        result = self._run_method(method, *args, **kwargs)
        lazy = isinstance(result, Iterator) and not hasattr(result, "__enter__")  # not an open file
        if result is self.base:  # a method to be called in a chain
            return self
        return LazyResult(result, self._call_method) if lazy else result

    def _run_method(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a method of the base's, or the base; where it calls its forward, as ``predict`` may, HERO runs."""
        if not self.hero_active:
            return method(*args, **kwargs)
        attributes = self.base.__dict__
        own = attributes.get("forward")

        def forward(*inner: Any, **named: Any) -> Any:
            restore()  # HERO calls the base's own forward, or a view of it
            try:
                return self._ground(*inner, **named)
            finally:
                attributes["forward"] = forward

        def restore() -> None:
            attributes.pop("forward", None)
            if own is not None:
                attributes["forward"] = own

        attributes["forward"] = forward
        try:
            return method(*args, **kwargs)
        finally:
            restore()

    def __setattr__(self, name: str, value: Any) -> None:
        # What a training loop sets on its model (aux_loss, a new class_embed) is the base's, as what it reads is.
        modules = self.__dict__.get("_modules") or {}
        own = name.startswith("_") or name in _OWN or hasattr(type(self), name)
        if isinstance(getattr(type(self), name, None), property):  # torch would keep a module under the name, unread
            raise AttributeError(f"{name} is HERO's own here: of the base, it is model.base.{name}")
        if "base" in modules and not own and hasattr(modules["base"], name):
            setattr(modules["base"], name, value)
            self._grounder = (self.base, self.adapter(self.base))  # a compiled forward does not look for what is new
            return
        before = vars(self.__dict__["config"]) if name == "config" and "config" in self.__dict__ else {}
        changed = [each for each, earlier in before.items() if earlier != getattr(value, each)]
        if fixed := [each for each in changed if each not in LIVE_FIELDS]:
            raise ValueError(
                f"{', '.join(fixed)}: the plug-in was made by these choices. Put a new one on the base, "
                "wrap_model(unwrap_model(model), ...), or beside this one, model.add_plugin(name, ...)"
            )
        super().__setattr__(name, value)
        if name == "config":
            self._settings = loss_settings(value)

    def __getstate__(self) -> dict[str, Any]:
        # What the last forward left belongs to its graph: it can be neither copied nor pickled.
        return {**self.__dict__, "last_forward": LastForward()}


class LazyResult(Iterator[Any]):
    """An iterator of the base's, a generator say, whose every step runs as its methods do: by ``run(next, it)``."""

    def __init__(self, steps: Iterator[Any], run: Callable[..., Any]) -> None:
        self._steps, self._run = steps, run

    def __next__(self) -> Any:
        return self._run(next, self._steps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__.get("_steps"), name)  # a generator's close


class Hero(nn.Module):
    """The plug-in's own modules: what ``hero.`` holds in a checkpoint. Only the parts that the config uses exist."""

    reads_levels = False  # of the class: a model that was pickled by an earlier version has none

    def __init__(self, dim: int, config: HeroConfig, relevance_ranks: bool = False) -> None:
        super().__init__()
        levels, deep = config.levels, config.levels > 1
        self.dim, self.levels = dim, levels
        self.reads_levels = config.levels_from == "input"
        encoder = ("stride", "num_heads", "feedforward", "dropout", "norm", "identity_start", "positions")
        encodes = deep and not self.reads_levels
        self.hem = HEM(dim, levels, **{name: getattr(config, name) for name in encoder}) if encodes else None
        of_query = dim if config.level_weights == "query" else None
        aggregation = (levels, config.aggregation_dim, config.normalize, of_query)
        self.aggregation = WeightedAggregation(*aggregation) if deep else None
        self.sgvf = SGVF(dim, levels, config.projections, config.gate) if config.sgvf else None
        self.cmtr = CMTR(dim, levels, config.mask_ratio, config.perturb, config.noise_size) if config.cmtr else None
        pair, ranked = config.relevance == "pair", relevance_ranks and config.calibrate
        self.relevance = PairRelevance(dim) if config.active and pair else None
        self.ranked = RankedRelevance() if config.active and ranked and not pair else None

    def words(self, query: Tensor, query_mask: Tensor, which: Sequence[int] | None = None) -> Tensor:
        """Return every level of the query, or ``which`` of them: (B, L, D) -> (N, B, L, D)."""
        return query.unsqueeze(0) if self.hem is None else self.hem(query, query_mask, which)

    def read(self, pair: Pair, which: Sequence[int] | None = None) -> tuple[Pair, Tensor]:
        """Return the pair with its query (B, L, D), and the query's ``words`` at its levels, wherever these come from.

        ``ValueError`` where they come with the input, and the query is not (B, L, N, D).
        """
        if not self.reads_levels:
            return pair, self.words(pair.query, pair.query_mask, which)
        sizes = (*pair.query_mask.shape, self.levels, self.dim)
        expect_shape("the projected words, with levels_from='input',", pair.query, "B L N D", sizes)
        levels = pair.query.movedim(2, 0)
        return replace(pair, query=levels[0]), levels if which is None else levels[list(which)]

    def clips(self, video: Tensor, levels: Tensor, query_mask: Tensor, which: Sequence[int] | None = None) -> Tensor:
        """Return the clips as each of these levels sees them: (B, T, D) -> (N, B, T, D)."""
        if self.sgvf is None:
            return video.unsqueeze(0).expand(levels.shape[0], -1, -1, -1)
        return self.sgvf(video, levels, query_mask, which)

    def combine(
        self, outputs: Any, kinds: Mapping[str, Any], which: Sequence[int] | None = None, query: Tensor | None = None
    ) -> Any:
        """Combine outputs with a leading N into outputs of the base's shape."""
        if self.aggregation is None or (which is not None and len(which) == 1):  # one level: its outputs as they are
            return map_tensors(lambda tensor, key: tensor if kinds.get(key) == "whole" else tensor[0], outputs)
        return self.aggregation(outputs, kinds, which, query)


_OWN = ("adapter", "base", "config", "hero", "last_forward", "training")
