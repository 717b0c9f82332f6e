"""Bases at the sizes asked for, plain or with HERO, as the training scripts' tasks."""

from __future__ import annotations

import copy
from argparse import Namespace
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin import HeroConfig, HeroModel, wrap_criterion, wrap_model
from hero_plugin.adapter import adapter_for
from hero_plugin.adapters.emb import EMB, EMBConfig
from hero_plugin.integrations.bases import BASES
from hero_plugin.integrations.bench.cases import Model
from hero_plugin.integrations.bench.inputs import VOCABULARY
from hero_plugin.integrations.bench.literal import LiteralHero
from hero_plugin.integrations.bench.sizes import Sizes
from hero_plugin.integrations.detr_task import DetrTask
from hero_plugin.integrations.emb_task import EmbTask
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.task import Task
from hero_plugin.integrations.upstream_detr_clone import load_upstream_detr
from hero_plugin.integrations.upstream_emb_clone import load_upstream_emb

CHARACTERS = 30
UPSTREAM_WIDTH = 256
CLONES = {
    "emb": ("EMB", "model.emb"),
    "moment_detr": ("moment_detr", "moment_detr.model"),
    "qd_detr": ("QD-DETR", "qd_detr.model"),
    "tr_detr": ("TR-DETR", "tr_detr.model"),
}
"""Base -> (its clone's folder, the module that holds it)."""


def recipe_of(base: str, sizes: Sizes) -> Any:
    """The training script's recipe at these sizes."""
    changes: dict[str, Any] = {"max_clips": sizes.clips, "batch_size": sizes.batch}
    changes |= {"dim": sizes.dim} if base == "emb" else {"hidden_dim": sizes.dim, "max_words": sizes.words}
    return replace(BASES[base].config(), **changes)


@dataclass(frozen=True)
class Bare:
    """A base, and the criterion of a DETR; EMB computes its losses itself."""

    model: nn.Module
    criterion: nn.Module | None

    def task(self, model: Model, hero: HeroConfig, recipe: Any, sizes: Sizes) -> Task:
        """One of the compared models, on a copy of this base.

        hero: every choice that is not the compared model's.
        """
        base, criterion = copy.deepcopy(self.model), copy.deepcopy(self.criterion)
        if model.levels:
            base = with_hero(base, model, hero)
            criterion = None if criterion is None else wrap_criterion(criterion, base.config)
        # The inputs are random: there is nothing to collate.
        if criterion is None:
            return EmbTask(base, None, emb_config(recipe, sizes), recipe.epochs)  # type: ignore[arg-type]
        return DetrTask(base, criterion, None)  # type: ignore[arg-type]


def with_hero(base: nn.Module, model: Model, hero: HeroConfig) -> HeroModel:
    """A base as the compared model has it, with HERO around it."""
    relevance = "pair" if model.name == "pair" else "base"
    config = replace(hero, levels=model.levels, relevance=relevance, checkpoint=model.name == "checkpoint")
    if model.name == "literal":
        return LiteralHero(base, config, adapter_for(base))
    return wrap_model(base, config=config)


def build_bare(base: str, sizes: Sizes, seed: int) -> Bare:
    """The reference implementation.

    Raises:
        UserError: sizes that it cannot be built with.
    """
    torch.manual_seed(seed)
    recipe = recipe_of(base, sizes)
    try:
        if base == "emb":
            return Bare(EMB(emb_config(recipe, sizes), word_vectors(sizes, seed)), None)
        entry: Any = BASES[base]
        return Bare(*entry.build(recipe, sizes.text_dim, sizes.video_dim))
    except ValueError as error:
        raise UserError(f"{base}: {error}") from error


def build_upstream(base: str, ours: Bare, sizes: Sizes, seed: int, clones: Path) -> Bare:
    """Its authors' implementation, with the weights of ours.

    clones: the folder that holds the clones, under the repositories' names.

    Raises:
        FileNotFoundError: the clone is not there.
        UserError: a width that upstream's code does not know.
    """
    folder, module = CLONES[base]
    if base in ("qd_detr", "tr_detr") and sizes.dim != UPSTREAM_WIDTH:
        raise UserError(f"--dim must be {UPSTREAM_WIDTH} for upstream's {folder}, whose code is written for it")
    if base == "emb":
        config = emb_config(recipe_of(base, sizes), sizes)
        theirs = Bare(load_upstream_emb(clones / folder).EMB(config, word_vectors(sizes, seed).numpy()), None)
    else:
        options = detr_options(ours.model.config)
        theirs = Bare(*load_upstream_detr(clones / folder, module).build_model(options))
    theirs.model.load_state_dict(ours.model.state_dict())
    return theirs


def emb_config(recipe: Any, sizes: Sizes) -> EMBConfig:
    config = recipe.emb(sizes.video_dim, sizes.text_dim)
    return replace(config, word_size=VOCABULARY + 2, char_size=CHARACTERS)


def word_vectors(sizes: Sizes, seed: int) -> Tensor:
    return torch.randn(VOCABULARY, sizes.text_dim, generator=torch.Generator().manual_seed(seed))


def detr_options(config: Any) -> Namespace:
    """What upstream's ``build_model`` reads, as ours was built."""
    options = {each.name: getattr(config, each.name) for each in fields(config)}
    return Namespace(
        **options,
        device=torch.device("cpu"),
        dset_name="hl",
        a_feat_dir=None,
        position_embedding="sine",
        t_feat_dim=config.text_dim,
        v_feat_dim=config.video_dim,
    )
