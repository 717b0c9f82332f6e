"""Whole plug-ins: several on one base, of which one answers and trains; the base frozen, or alone for a while."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from hero_plugin.adapter import known_adapters
from hero_plugin.config import HeroConfig, chosen_config, with_config_note
from hero_plugin.plugin import Fingerprint, Plugin, PluginError, version, write_folder
from hero_plugin.protocol import Grounder

DEFAULT_NAME = "default"


class Frozen:
    """The state that a base had before it was frozen: which parameters were trainable, and the mode of each module.

    A frozen base is deterministic: its modules stay in eval mode, whatever mode the wrapped model is in. Gradients
    pass through it to the plug-in.
    """

    over = False
    """Whether it was restored: by any of the wrappers that share the base."""

    def __init__(self, base: nn.Module) -> None:
        self.trainable = {name: parameter.requires_grad for name, parameter in base.named_parameters()}
        self.modes = {name: module.training for name, module in base.named_modules()}
        base.requires_grad_(False)

    def keep_in_eval(self, base: nn.Module, backward: bool) -> None:
        """Put every module that draws or keeps statistics in eval mode; ``backward``: whether one will follow."""
        base.eval()
        for module in base.modules() if backward else ():
            # cuDNN has no backward for a recurrent layer in eval mode; where it drops nothing the modes are the same.
            if isinstance(module, nn.RNNBase) and (module.num_layers == 1 or module.dropout == 0):
                module.training = True

    def restore(self, base: nn.Module) -> None:
        """Give every parameter and module of the base its state from before; new ones keep theirs."""
        for name, parameter in base.named_parameters():
            parameter.requires_grad_(self.trainable.get(name, parameter.requires_grad))
        for name, module in base.named_modules():
            module.training = self.modes.get(name, module.training)
        self.over = True


FROZEN: WeakKeyDictionary[nn.Module, Frozen] = WeakKeyDictionary()
"""The bases that are frozen, by whichever wrapper: another one of the same base restores the same state."""


class NamedPlugins(nn.Module):
    """What a wrapped model does with whole plug-ins, and with its base: freeze, switch off, add, switch, save.

    The active one is the model's ``hero``: it answers, it is what ``parameters`` and ``state_dict`` show, it trains.
    The others are kept aside and move along to other devices, and nothing else happens to them.
    """

    base: nn.Module
    hero: Any
    config: HeroConfig
    adapter: Callable[[nn.Module], Grounder]
    _enabled = True  # of the class: a model that was pickled by an earlier version has none
    _frozen: Frozen | None = None
    _grounder: tuple[nn.Module, Grounder]
    _plugins: dict[str, tuple[Any, HeroConfig] | None]
    """What is kept aside, by name, and so is no submodule; None for the active one, which is the model's own."""
    _make_hero: Any
    _use: Any

    @property
    def grounder(self) -> Grounder:
        """The base as HERO sees it: what the adapter makes of it."""
        if self._grounder[0] is not self.base:  # a replica of DataParallel's has a base of its own
            self._grounder = (self.base, self.adapter(self.base))
        return self._grounder[1]

    def freeze_base(self) -> None:
        """Train the plug-in alone: the base's parameters take no gradient, and it stays in eval mode."""
        if self._frozen is None or self._frozen.over:
            self._frozen = FROZEN[self.base] = FROZEN.get(self.base) or Frozen(self.base)
            self._frozen.keep_in_eval(self.base, self.training)

    def unfreeze_base(self) -> None:
        """Undo ``freeze_base``: what learned before learns again; in training, every module regains the mode it had."""
        if self._frozen is not None and not self._frozen.over:
            self._frozen.restore(self.base)
            if not self.training:
                self.base.eval()
            FROZEN.pop(self.base, None)
        self._frozen = None

    @property
    def hero_active(self) -> bool:
        """Whether HERO takes part: not where its config adds nothing, nor within ``disable_hero``."""
        return self._enabled and self.config.active

    @contextmanager
    def disable_hero(self) -> Iterator[Any]:
        """Let the base answer alone within this context, bit for bit.

        HERO's losses stay those of the last forward with HERO. What is saved here still has the plug-in.

        Example:
            >>> with model.disable_hero():
            ...     plain = model(*inputs)
        """
        before, self._enabled = self._enabled, False
        try:
            yield self
        finally:
            self._enabled = before

    @property
    def plugins(self) -> dict[str, HeroConfig]:
        """The config of every plug-in by its name, in the order they came."""
        return {name: self.config if aside is None else aside[1] for name, aside in self._plugins.items()}

    @property
    def active_plugin(self) -> str:
        """The name of the plug-in that answers and trains."""
        return next(name for name, aside in self._plugins.items() if aside is None)

    def add_plugin(self, name: str, config: HeroConfig | None = None, **choices: Any) -> None:
        """Put another plug-in on the base, fresh. The active one stays so: ``set_active(name)`` changes that.

        ``config`` and the single choices are as in ``wrap_model``.

        Raises:
            ValueError: there is one of this name, or a choice has an impossible value.
            TypeError: a choice does not exist.

        Example:
            >>> model.add_plugin("tacos", levels=2)
            >>> model.set_active("tacos")
            >>> optimizer = torch.optim.AdamW(model.parameters())
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"a plug-in's name must be a text, got {name!r}")
        if name in self._plugins:
            raise ValueError(f"there is a plug-in {name!r} already: choose another name, or remove_plugin({name!r})")
        chosen = chosen_config(config or HeroConfig(), choices)
        self._plugins[name] = self._make_hero(chosen).train(self.training), chosen

    def set_active(self, name: str) -> None:
        """Let this plug-in answer and train; the one before is kept aside as it is, without gradients.

        Make optimizers afterwards, and put the model into ``DistributedDataParallel`` or ``fully_shard`` afterwards.

        Raises:
            ValueError: there is none of this name; the message names those that there are.
        """
        aside, before = self._known(name), self.active_plugin
        if aside is not None:
            self.hero.zero_grad(set_to_none=True)
            self._plugins[before], self._plugins[name] = (self.hero, self.config), None
            self._use(aside[0].train(self.training), aside[1])

    def remove_plugin(self, name: str) -> None:
        """Forget a plug-in that is not active.

        Raises:
            ValueError: there is none of this name, or it is the active one.
        """
        if self._known(name) is None:
            raise ValueError(f"{name!r} is active: set_active another one first")
        del self._plugins[name]

    def print_trainable_parameters(self) -> None:
        """Print how many parameters learn: of HERO, of the base, in all."""
        hero = f"HERO {self.active_plugin!r}" if len(self._plugins) > 1 else "HERO"
        for name, part in {hero: self.hero, "base": self.base, "in all": self}.items():
            sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
            every, learning = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
            print(f"{name}: {learning:,} of {every:,} parameters learn ({100 * learning / max(every, 1):.2f} %)")

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        with_base: bool | None = None,
        card: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write a folder for the active plug-in, with a model card: ``from_pretrained`` reads it, the hub takes it.

        Args:
            folder: where ``plugin.safetensors`` and ``README.md`` go; ``plugin.pt`` where safetensors is not installed.
            with_base: write the base's weights, too; None does so where the base learns: HERO fits the weights that it
                was trained with.
            card: further sections of the model card, Markdown by heading. ``hero-plugin weights card`` writes them
                from a run.
            overwrite: replace what an earlier call wrote there.

        Raises:
            PluginError: the folder holds a plug-in or a README.md already.
        """
        if with_base is None:
            with_base = any(parameter.requires_grad for parameter in self.base.parameters())
        base = self.base.state_dict()
        if with_base and (odd := [name for name, value in base.items() if not isinstance(value, Tensor)]):
            raise PluginError(
                f"{', '.join(odd[:3])}: not tensors, which such a folder could not keep: with_base=False leaves the "
                "base's weights out; save them by torch.save(model.base.state_dict(), path)"
            )
        known = self.adapter in known_adapters() or isinstance(self.base, Grounder)
        adapter = "" if known else getattr(self.adapter, "__name__", "YOUR_ADAPTER")
        write_folder(folder, self.as_plugin(), base if with_base else None, card, overwrite, adapter)

    def hero_state_dict(self) -> dict[str, Tensor]:
        """Return the plug-in's weights alone, under ``hero.``: a small checkpoint for any copy of the base."""
        whole = self.state_dict()
        return with_config_note({name: value for name, value in whole.items() if name.startswith("hero.")}, self.config)

    def as_plugin(self) -> Plugin:
        """Return the active plug-in as it stands, as a checkpoint."""
        weights = {name: value.detach().cpu().clone() for name, value in self.hero_state_dict().items()}
        return Plugin(weights, self.config, Fingerprint.of(self.base, self.grounder), version())

    def extra_repr(self) -> str:
        """Return, for ``print(model)``, the config, what else is recommended, and the names of several plug-ins."""
        lines, recommended = [repr(self.config)], getattr(self.grounder, "recommended", {})
        if any(getattr(self.config, name) != value for name, value in recommended.items()):
            choices = ", ".join(f"{name}={value!r}" for name, value in recommended.items())
            lines.append(f"on this base {choices} measured no worse, and costs less: docs/results/summary.md")
        if len(self._plugins) > 1:
            lines.append(f"plug-ins: {', '.join(self._plugins)}; active: {self.active_plugin}")
        return "\n".join(lines)

    def _known(self, name: str) -> tuple[Any, HeroConfig] | None:
        if name not in self._plugins:
            close = difflib.get_close_matches(str(name), self._plugins, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"no plug-in is called {name!r}; there are {', '.join(map(repr, self._plugins))}{hint}")
        return self._plugins[name]
