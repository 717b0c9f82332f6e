"""What the launcher puts in the place of a repository's model-building code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hero_plugin import HeroConfig, HeroModel, wrap_criterion, wrap_model
from hero_plugin.integrations.support.errors import UserError


class Wrapping:
    """Wraps whatever a repository builds, and remembers the model for what is logged.

    Args:
        config: what to wrap with.
        options: further arguments of :func:`~hero_plugin.wrap_model`.
    """

    def __init__(self, config: HeroConfig, **options: Any) -> None:
        self.config, self.options = config, options
        self.model: HeroModel | None = None

    def builder(self, build: Callable[..., Any]) -> Callable[..., Any]:
        """A function or a class that makes a model, or a model and its criterion -> the same, wrapped."""

        @functools.wraps(build, updated=())
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            made = build(*args, **kwargs)
            if isinstance(made, tuple):
                model, criterion, *rest = made
                return (self.wrap(model), wrap_criterion(criterion, self.config), *rest)
            return self.wrap(made)

        return wrapped

    def wrap(self, model: nn.Module) -> HeroModel:
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

    def losses(self) -> dict[str, Tensor]:
        """HERO's losses of the last step, not weighted; none while nothing was trained."""
        return {} if self.model is None else self.model.hero_losses()
