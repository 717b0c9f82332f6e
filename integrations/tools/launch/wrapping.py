"""HERO in the place of a repository's own model-building code, and its choices in the words of the command line."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from hero_plugin import HeroConfig, HeroModel, __version__, config_of, wrap_criterion, wrap_model
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import atomic_write, write_json

BY_HAND = "the repository's own code calls wrap_model already: add --without-hero"


class Wrapping:
    """Wraps whatever a repository builds, and remembers the model for what is logged.

    ``origin`` says where the config comes from, for people; ``options`` are further arguments of ``wrap_model``.
    """

    def __init__(self, config: HeroConfig, origin: str = "the flags", **options: Any) -> None:
        self.config, self.origin, self.options = config, origin, options
        self.model: HeroModel | None = None
        self._paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave plain what is built in the block."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def build(self, builder: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function or class that makes a model, or a model and its criterion; return the same, wrapped."""
        made = builder(*args, **kwargs)
        if self._paused:
            return made
        if not isinstance(made, tuple):
            return self.wrap(made)
        model, criterion, *rest = made
        return (self.wrap(model), wrap_criterion(criterion, self.config), *rest)

    def wrap(self, model: nn.Module) -> HeroModel:
        """Put HERO around a model; raise ``UserError`` where it cannot be put around this one."""
        if isinstance(model, HeroModel):
            raise UserError(BY_HAND)
        name = type(model).__name__
        try:
            self.model = wrap_model(model, config=self.config, **self.options)
        except (TypeError, ValueError) as error:
            raise UserError(f"HERO cannot be put around this {name}: {in_flags(str(error))}") from error
        size = sum(parameter.numel() for parameter in self.model.hero.parameters()) / 1e6
        said = f"{as_flags(self.config)} (from {self.origin}), {size:.2f} M parameters of its own"
        print(f"hero-plugin: HERO around {name}: {said}", file=sys.stderr)
        return self.model

    def save(self, save: Callable[..., Any], obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, and beside it, in ``hero.json``, which HERO it has.

        Ctrl-C in the middle leaves the file that was there before: it is often the best checkpoint of days.
        """
        path = Path(f).resolve() if isinstance(f, (str, os.PathLike)) else None  # its arguments are torch.save's
        if path is None or not path.parent.is_dir() or (path.exists() and not path.is_file()):
            return save(obj, f, *args, **kwargs)
        with atomic_write(path, "wb", durable=False) as stream:
            save(obj, stream, *args, **kwargs)
        if self.model is not None and saved_config(obj) == self.config:
            base, config = type(self.model.base).__name__, self.config.to_dict()
            said = {"hero_plugin": __version__, "base": base, "config": config}
            write_json(Path(f).with_name("hero.json"), said)


def saved_config(checkpoint: Any) -> HeroConfig | None:
    """Return the HERO of a checkpoint's weights, if any; every repository keeps them under a name of its own."""
    parts = [checkpoint, *checkpoint.values()] if isinstance(checkpoint, Mapping) else []
    return next((config for config in map(config_of, parts) if config is not None), None)


def as_flags(config: HeroConfig, names: Iterable[str] | None = None) -> str:
    """Return these fields as flags; without names, the levels and whatever is not the default."""
    if names is None:
        usual = HeroConfig()
        changed = [each.name for each in fields(config) if getattr(config, each.name) != getattr(usual, each.name)]
        names = dict.fromkeys(("levels", *changed))
    return " ".join(as_flag(name, getattr(config, name)) for name in names)


def as_flag(name: str, value: object) -> str:
    """Return one choice as a flag."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{name}"
    return " ".join(map(str, (f"--{name}", *(value if isinstance(value, tuple) else (value,)))))


def in_flags(message: str) -> str:
    """Say in flags what the library says in arguments."""
    names = [*(each.name for each in fields(HeroConfig)), "freeze_base"]
    for name in names:
        flag = as_flag(name, True)
        message = message.replace(f"{name}=True", flag).replace(f"{name}=False", as_flag(name, False))
        message = re.sub(rf"\b{name}='?(-?\w[\w.]*)'?", rf"{flag} \1", message)
        # A word such as gate is a flag where it comes first; one such as mask_ratio everywhere.
        message = re.sub(rf"\b{name}\b" if "_" in name else rf"^{name}\b", flag, message)
    return message


def contradictions(chosen: HeroConfig, known: HeroConfig) -> list[str]:
    """Return the fields by which weights of a known HERO would mean something else, or not fit, under the chosen one.

    Sizes that depend on the base are not compared: loading compares them.
    """
    here, there = (config.architecture(dim=0, ranks=True) for config in (chosen, known))
    names = [name for name in {**here, **there} if getattr(chosen, name) != getattr(known, name)]
    return [name for name in names if name != "feedforward" or None not in (chosen.feedforward, known.feedforward)]
