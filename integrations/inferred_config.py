"""A plug-in's config from its weights alone: what their shapes say, and what has to be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from hero_plugin import HeroConfig
from hero_plugin.integrations.errors import UserError


@dataclass
class Told:
    """What weights do not say. Only needed where neither the checkpoint nor its run folder holds the config."""

    num_heads: int | None = None
    """Attention heads of the text encoder."""
    norm: Literal["pre", "post"] | None = None
    """Where the encoder normalises."""
    positions: bool | None = None
    """Whether its attention knows where a word stands."""
    gate: Literal["residual", "sigmoid", "none"] | None = None
    """SGVF's gate; none: the model was trained without SGVF. A sigmoid gate has no weights to tell it by."""


def infer_config(hero: Mapping[str, Tensor], told: Told, source: str) -> HeroConfig:
    """The config that weights under ``hero.`` were made with; what only training reads has its default.

    Raises:
        UserError: choices that the weights do not show are not told either (it names the flags), or contradict them.
    """
    missing = [flag for flag in open_choices(hero) if getattr(told, flag) is None]
    if missing:
        raise UserError(
            f"{source}: holds no config, and the weights do not say "
            + ", ".join(name.replace("_", " ") for name in missing)
            + ". Give "
            + " ".join(f"--{name.replace('_', '-')}" for name in missing)
            + f" as the model was trained (the defaults of HeroConfig: {_defaults(missing)}), or --config FILE"
        )
    fields = shown(hero)
    seen = seen_gate(hero)
    if seen and told.gate not in (None, seen):
        raise UserError(f"{source}: --gate {told.gate} contradicts the weights, which have a {seen} gate's")
    gate = seen or told.gate or "none"
    fields["sgvf"] = gate != "none"
    if gate != "none":
        fields["gate"] = gate
    if "num_heads" in open_choices(hero):
        fields |= {"num_heads": told.num_heads, "norm": told.norm, "positions": told.positions}
        fields["identity_start"] = told.norm != "post"
    try:
        return HeroConfig(**fields)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def shown(hero: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields that shapes and names of the weights decide."""
    fields: dict[str, Any] = {"levels": 1, "cmtr": "hero.cmtr.mask_token" in hero}
    if "hero.aggregation.templates" in hero:
        fields["levels"], fields["aggregation_dim"] = hero["hero.aggregation.templates"].shape
        fields["normalize"] = "hero.aggregation.mlp.2.bias" not in hero
    layers = {name.split(".")[3] for name in hero if name.startswith("hero.hem.layers.")}
    if layers:
        fields["stride"] = len(layers) // (fields["levels"] - 1)
        hidden, dim = hero["hero.hem.layers.0.expand.weight"].shape
        fields["feedforward"] = None if hidden == 4 * dim else hidden
    fields["projections"] = "hero.sgvf.projections" in hero
    fields["calibrate"] = "hero.ranked.offset" in hero  # of no consequence where the base's score is a logit
    fields["relevance"] = "pair" if any(name.startswith("hero.relevance.") for name in hero) else "base"
    return fields


def open_choices(hero: Mapping[str, Tensor]) -> list[str]:
    """The fields of :class:`Told` that these weights leave open."""
    encoder = any(name.startswith("hero.hem.") for name in hero)
    return [*(["num_heads", "norm", "positions"] if encoder else []), *([] if seen_gate(hero) else ["gate"])]


def seen_gate(hero: Mapping[str, Tensor]) -> str | None:
    """SGVF's gate where the weights show it: only a residual one has a strength."""
    if "hero.sgvf.strength" in hero:
        return "residual"
    return "sigmoid" if "hero.sgvf.projections" in hero else None


def _defaults(names: list[str]) -> str:
    flags = {
        "positions": f"--positions {HeroConfig().positions}",
        "num_heads": f"--num-heads {HeroConfig().num_heads}",
        "norm": f"--norm {HeroConfig().norm}",
        "gate": f"--gate {HeroConfig().gate}",
    }
    return " ".join(flags[name] for name in names)
