"""HERO's choices in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields

from hero_plugin import HeroConfig


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
