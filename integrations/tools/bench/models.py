"""Bases at the requested sizes, plain or with HERO, as the training scripts' tasks."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from hero_plugin import HeroConfig, HeroModel, clip_labels, wrap_criterion, wrap_model
from hero_plugin.adapter import adapter_for
from hero_plugin.adapters.emb import EMB, EMBConfig
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.bench.cases import Format, Mode, Model, Sizes
from hero_plugin.integrations.tools.bench.counters import Step
from hero_plugin.integrations.tools.bench.literal import LiteralHero
from hero_plugin.integrations.tools.bench.upstream import load_upstream_detr, load_upstream_emb
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.batching import to_device
from hero_plugin.integrations.training.detr import DetrBase, DetrTask
from hero_plugin.integrations.training.device import Amp, autocast
from hero_plugin.integrations.training.emb import EmbTask
from hero_plugin.integrations.training.optim import build_optimizer
from hero_plugin.integrations.training.task import Batch, Task

# Random batches as the training scripts take them; the first video and the first query are of full length.


VOCABULARY = 1000
CLIP_SECONDS = 2.0
HIGHEST_SCORE = 4.0
MOST_MOMENTS = 2


def emb_batch(sizes: Sizes, draw: Generator) -> Batch:
    """Return a batch with the keys and shapes of ``EmbCollate``."""
    clips, v_mask = random_lengths(sizes.batch, sizes.clips, draw)
    _, q_mask = random_lengths(sizes.batch, sizes.words, draw)
    word_ids = torch.randint(1, VOCABULARY + 2, q_mask.shape, generator=draw) * q_mask.long()
    video = torch.randn(*v_mask.shape, sizes.video_dim, generator=draw) * v_mask.unsqueeze(-1)
    first = (torch.rand(sizes.batch, generator=draw) * clips).long()
    last = first + (torch.rand(sizes.batch, generator=draw) * (clips - first)).long()
    return {
        "word_ids": word_ids,
        "q_mask": q_mask,
        "video": video,
        "v_mask": v_mask,
        "clips": clips,
        "durations": clips * CLIP_SECONDS,
        "first": first,
        "last": last,
    }


def detr_batch(sizes: Sizes, draw: Generator) -> Batch:
    """Return a batch with the keys and shapes of ``DetrCollate``, with one or two moments per query."""
    clips, v_mask = random_lengths(sizes.batch, sizes.clips, draw)
    words, q_mask = random_lengths(sizes.batch, sizes.words, draw)
    width = 0.05 + 0.25 * torch.rand(sizes.batch, MOST_MOMENTS, generator=draw)
    start = torch.rand(sizes.batch, MOST_MOMENTS, generator=draw) * (1 - width)
    windows = torch.randint(1, MOST_MOMENTS + 1, (sizes.batch,), generator=draw)
    spans = torch.stack([start + width / 2, width], dim=-1)
    spans = spans * (torch.arange(MOST_MOMENTS) < windows.unsqueeze(1)).unsqueeze(-1)
    inside = clip_labels([row[:count] for row, count in zip(spans, windows.tolist(), strict=True)], v_mask)
    return {
        "src_txt": torch.randn(*q_mask.shape, sizes.text_dim, generator=draw) * q_mask.unsqueeze(-1),
        "src_txt_mask": q_mask,
        "src_vid": torch.randn(*v_mask.shape, sizes.video_dim, generator=draw) * v_mask.unsqueeze(-1),
        "src_vid_mask": v_mask,
        "clips": clips,
        "words": words,
        "durations": clips * CLIP_SECONDS,
        "spans": spans,
        "windows": windows,
        "hard_positive": torch.full_like(windows, -1),
        "hard_negative": torch.full_like(windows, -1),
        "positives": inside,
        "negatives": v_mask - inside,
        "scores": inside * HIGHEST_SCORE,
        "relevant": inside,
    }


def random_lengths(count: int, longest: int, draw: Generator) -> tuple[Tensor, Tensor]:
    """Draw lengths from a third of ``longest`` on: (count,) long, and their mask (count, longest) float32."""
    lengths = torch.randint(-(-longest // 3), longest + 1, (count,), generator=draw)
    lengths[0] = longest
    return lengths, (torch.arange(longest) < lengths.unsqueeze(1)).float()


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


# A step as the training scripts take it, and what it holds.


AMP: dict[str, Amp] = {"fp32": "none", "bf16": "bf16"}


@dataclass(frozen=True)
class Job:
    """A model, its batch and its optimizer, ready to take steps."""

    task: Task
    batch: Batch
    optimizer: torch.optim.Optimizer | None
    """None in inference."""
    clip_norm: float
    amp: Amp
    device: torch.device

    @classmethod
    def of(cls, task: Task, batch: Batch, recipe: Any, mode: Mode, dtype: Format, device: torch.device) -> Job:
        """On the device, in the mode; the optimizer is the recipe's."""
        model = task.model.to(device).train(mode == "train")
        if isinstance(criterion := getattr(task, "criterion", None), nn.Module):
            criterion.to(device)
        optimizer = None
        if mode == "train":
            fused = device.type == "cuda"
            optimizer = build_optimizer(model, recipe.optimizer, recipe.lr, recipe.weight_decay, fused=fused)
        batch = to_device(batch, device)
        return cls(task, batch, optimizer, recipe.clip_norm, AMP[dtype], device)

    def step(self, model: nn.Module | None = None) -> Step:
        """model: instead of the task's, the same compiled."""
        model = self.task.model if model is None else model
        return self._predict(model) if self.optimizer is None else self._train(model, self.optimizer)

    def held(self) -> Iterator[Tensor]:
        """Every tensor that is there between two steps."""
        model, optimizer = self.task.model, self.optimizer
        yield from model.parameters()
        yield from model.buffers()
        yield from (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
        yield from self.batch.values()
        for state in optimizer.state.values() if optimizer is not None else ():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def _train(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        def step() -> None:
            with autocast(self.amp, self.device):
                loss = self.task.losses(model, self.batch, epoch=0)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)
            optimizer.step()

        return step

    def _predict(self, model: nn.Module) -> Step:
        @torch.no_grad()
        def step() -> None:
            with autocast(self.amp, self.device):
                self.task.predict(model, self.batch)

        return step
