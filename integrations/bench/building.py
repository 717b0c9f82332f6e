"""Bases at the requested sizes, plain or with HERO, as the training scripts' tasks."""

from __future__ import annotations

import copy
from argparse import Namespace
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hero_plugin import HeroConfig, HeroModel, wrap_criterion, wrap_model
from hero_plugin.adapter import adapter_for
from hero_plugin.adapters.emb import EMB, EMBConfig
from hero_plugin.integrations.bases import BASES
from hero_plugin.integrations.bench.cases import Model
from hero_plugin.integrations.bench.inputs import VOCABULARY, detr_batch, emb_batch
from hero_plugin.integrations.bench.literal import LiteralHero
from hero_plugin.integrations.bench.sizes import Sizes
from hero_plugin.integrations.detr_base import DetrBase
from hero_plugin.integrations.detr_task import DetrTask
from hero_plugin.integrations.emb_task import EmbTask
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.task import Batch, Task
from hero_plugin.integrations.upstream_detr_clone import load_upstream_detr
from hero_plugin.integrations.upstream_emb_clone import load_upstream_emb

CHARACTERS = 30


@dataclass(frozen=True)
class Bare:
    """A base, and the criterion of a DETR; EMB computes its losses itself."""

    model: nn.Module
    criterion: nn.Module | None

    def task(self, model: Model, hero: HeroConfig, recipe: Any, sizes: Sizes) -> Task:
        """Return one of the compared models, on a copy of this base.

        Args:
            hero: every choice that is not the compared model's.
        """
        base, criterion = copy.deepcopy(self.model), copy.deepcopy(self.criterion)
        if model.levels:
            base = with_hero(base, model, hero)
            criterion = None if criterion is None else wrap_criterion(criterion, base.config)
        # The inputs are random: there is nothing to collate.
        if criterion is None:
            return EmbTask(base, None, emb_config(recipe, sizes), recipe.epochs)
        return DetrTask(base, criterion, None)


def with_hero(base: nn.Module, model: Model, hero: HeroConfig) -> HeroModel:
    """Put HERO around a base as the compared model has it."""
    relevance: Literal["base", "pair"] = "pair" if model.name == "pair" else "base"
    config = replace(hero, levels=model.levels, relevance=relevance, checkpoint=model.name == "checkpoint")
    if model.name == "literal":
        return LiteralHero(base, config, adapter_for(base))
    return wrap_model(base, config=config)


class EmbModels:
    """EMB as the bench builds it."""

    base = BASES["emb"]

    def recipe(self, sizes: Sizes) -> Any:
        """Return the training script's settings at these sizes."""
        return replace(self.base.config(), max_clips=sizes.clips, batch_size=sizes.batch, dim=sizes.dim)

    def batch(self, sizes: Sizes, draw: torch.Generator) -> Batch:
        """Draw a batch."""
        return emb_batch(sizes, draw)

    def reference(self, sizes: Sizes, seed: int) -> Bare:
        """Build the reference implementation."""
        return Bare(EMB(emb_config(self.recipe(sizes), sizes), word_vectors(sizes, seed)), None)

    def upstream(self, ours: Bare, sizes: Sizes, seed: int, clone: Path) -> Bare:
        """Build the authors' implementation."""
        config = emb_config(self.recipe(sizes), sizes)
        return Bare(load_upstream_emb(clone).EMB(config, word_vectors(sizes, seed).numpy()), None)


@dataclass(frozen=True)
class DetrModels:
    """A DETR as the bench builds it."""

    base: DetrBase

    def recipe(self, sizes: Sizes) -> Any:
        """Return the training script's settings at these sizes."""
        changes = {"max_clips": sizes.clips, "batch_size": sizes.batch, "hidden_dim": sizes.dim}
        return replace(self.base.config(), **changes, max_words=sizes.words)

    def batch(self, sizes: Sizes, draw: torch.Generator) -> Batch:
        """Draw a batch."""
        return detr_batch(sizes, draw)

    def reference(self, sizes: Sizes, seed: int) -> Bare:
        """Build the reference implementation."""
        return Bare(*self.base.build(self.recipe(sizes), sizes.text_dim, sizes.video_dim))

    def upstream(self, ours: Bare, sizes: Sizes, seed: int, clone: Path) -> Bare:
        """Build the authors' implementation."""
        return Bare(*load_upstream_detr(clone, self.base.clone[1]).build_model(detr_options(ours.model.config)))


def models_for_base(base: str) -> EmbModels | DetrModels:
    """Return what builds the models of a base and draws its batches."""
    entry = BASES[base]
    return DetrModels(entry) if isinstance(entry, DetrBase) else EmbModels()


def recipe_of(base: str, sizes: Sizes) -> Any:
    """Return the settings of a base's training script at these sizes."""
    return models_for_base(base).recipe(sizes)


def random_batch(base: str, sizes: Sizes, seed: int) -> Batch:
    """Draw a batch as the base's collate function would make it, on the CPU."""
    return models_for_base(base).batch(sizes, torch.Generator().manual_seed(seed))


def build_bare(base: str, sizes: Sizes, seed: int) -> Bare:
    """Build the reference implementation of a base.

    Raises:
        UserError: sizes that it cannot be built with.
    """
    torch.manual_seed(seed)
    try:
        return models_for_base(base).reference(sizes, seed)
    except ValueError as error:
        raise UserError(f"{base}: {error}") from error


def build_upstream(base: str, ours: Bare, sizes: Sizes, seed: int, clones: Path) -> Bare:
    """Build the authors' implementation of a base, with the weights of ours.

    Args:
        clones: the folder that holds the clones, under the repositories' names.

    Raises:
        FileNotFoundError: the clone is not there.
        UserError: a hidden size that the authors' code is not written for.
    """
    entry = BASES[base]
    folder, width = entry.clone[0], entry.clone_width
    if width is not None and sizes.dim != width:
        raise UserError(f"--dim must be {width} for upstream's {folder}, whose code is written for it")
    theirs = models_for_base(base).upstream(ours, sizes, seed, clones / folder)
    theirs.model.load_state_dict(ours.model.state_dict())
    return theirs


def emb_config(recipe: Any, sizes: Sizes) -> EMBConfig:
    """Return what describes EMB at these sizes."""
    config = recipe.emb(sizes.video_dim, sizes.text_dim)
    return replace(config, word_size=VOCABULARY + 2, char_size=CHARACTERS)


def word_vectors(sizes: Sizes, seed: int) -> Tensor:
    """Draw word vectors: (words, text_dim)."""
    return torch.randn(VOCABULARY, sizes.text_dim, generator=torch.Generator().manual_seed(seed))


def detr_options(config: Any) -> Namespace:
    """Return what upstream's ``build_model`` reads, as ours was built."""
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
