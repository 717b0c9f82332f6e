"""HERO in the place of a repository's own model-building code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from hero_plugin import HeroConfig, HeroModel, wrap_criterion, wrap_model
from hero_plugin.integrations.support.errors import UserError


class Wrapping:
    """Wraps whatever a repository builds, and remembers the model for what is logged.

    Args:
        config: HERO's choices.
        options: further arguments of ``wrap_model``.
    """

    def __init__(self, config: HeroConfig, **options: Any) -> None:
        self.config, self.options = config, options
        self.model: HeroModel | None = None

    def build(self, builder: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function or class that makes a model, or a model and its criterion; return the same, wrapped."""
        made = builder(*args, **kwargs)
        if not isinstance(made, tuple):
            return self.wrap(made)
        model, criterion, *rest = made
        return (self.wrap(model), wrap_criterion(criterion, self.config), *rest)

    def wrap(self, model: nn.Module) -> HeroModel:
        """Put HERO around a model.

        Raises:
            UserError: it cannot be put around this one.
        """
        try:
            self.model = wrap_model(model, config=self.config, **self.options)
        except (TypeError, ValueError) as error:
            raise UserError(f"HERO cannot be put around this {type(model).__name__}: {error}") from error
        added = sum(parameter.numel() for parameter in self.model.hero.parameters())
        print(
            f"hero-plugin: HERO around {type(model).__name__}, {self.config.levels} levels, "
            f"{added / 1e6:.2f} M parameters of its own",
            file=sys.stderr,
        )
        return self.model
