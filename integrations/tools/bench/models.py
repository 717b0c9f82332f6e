"""Bases at the requested sizes, plain or with HERO, random batches for them, and the steps that they take."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from hero_plugin import HeroConfig, HeroModel, clip_labels, wrap_criterion, wrap_model
from hero_plugin.adapter import adapter_for
from hero_plugin.adapters.emb import EMB
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.bench.cases import Setting, Sizes, Variant
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

VOCABULARY, CHARACTERS = 1000, 30
CLIP_SECONDS = 2.0
HIGHEST_SCORE = 4.0
MOST_MOMENTS = 2
AMP: dict[str, Amp] = {"fp32": "none", "bf16": "bf16"}


def recipe_of(base: str, sizes: Sizes) -> Any:
    """Return the settings of a base's training script at these sizes."""
    entry = BASES[base]
    of_detr = {"hidden_dim": sizes.dim, "max_words": sizes.words}
    named: dict[str, Any] = of_detr if isinstance(entry, DetrBase) else {"dim": sizes.dim}
    return replace(entry.config(), max_clips=sizes.clips, batch_size=sizes.batch, **named)


@dataclass(frozen=True)
class Bare:
    """A base without HERO, and the criterion of a DETR; EMB computes its losses itself."""

    model: nn.Module
    criterion: nn.Module | None

    def task(self, variant: Variant, hero: HeroConfig, recipe: Any) -> Task:
        """Return one of the compared models, on a copy of this base. ``hero`` has all choices but the variant's."""
        base, criterion = copy.deepcopy(self.model), copy.deepcopy(self.criterion)
        if variant.levels:
            base = with_hero(base, variant, hero)
            criterion = None if criterion is None else wrap_criterion(criterion, base.config)
        # The inputs are random: there is nothing to collate.
        collate: Any = None
        if criterion is None:
            configs: Any = self.model.configs
            return EmbTask(base, collate, configs, recipe.epochs)
        return DetrTask(base, criterion, collate)


def with_hero(base: nn.Module, variant: Variant, hero: HeroConfig) -> HeroModel:
    """Put HERO around a base as the variant has it."""
    relevance: Literal["base", "pair"] = "pair" if variant.name == "pair" else "base"
    config = replace(hero, levels=variant.levels, relevance=relevance, checkpoint=variant.name == "checkpoint")
    if variant.name == "literal":
        return LiteralHero(base, config, adapter_for(base))
    return wrap_model(base, config=config)


def build_bare(base: str, sizes: Sizes, seed: int) -> Bare:
    """Build the reference implementation of a base.

    Raises:
        UserError: sizes that it cannot be built with.
    """
    entry, recipe = BASES[base], recipe_of(base, sizes)
    torch.manual_seed(seed)
    try:
        if isinstance(entry, DetrBase):
            return Bare(*entry.build(recipe, sizes.text_dim, sizes.video_dim))
        config = recipe.emb(sizes.video_dim, sizes.text_dim)
        return Bare(
            EMB(replace(config, word_size=VOCABULARY + 2, char_size=CHARACTERS), word_vectors(sizes, seed)), None
        )
    except ValueError as error:
        raise UserError(f"{base}: {error}") from error


def build_upstream(base: str, ours: Bare, sizes: Sizes, seed: int, clones: Path) -> Bare:
    """Build the authors' implementation of a base, with the weights of ours, from a folder of clones.

    Raises:
        FileNotFoundError: the clone is not there.
        UserError: a hidden size that the authors' code is not written for.
    """
    entry = BASES[base]
    (folder, module), width = entry.clone, entry.clone_width
    if width is not None and sizes.dim != width:
        raise UserError(f"--dim must be {width} for upstream's {folder}, whose code is written for it")
    if isinstance(entry, DetrBase):
        built = load_upstream_detr(clones / folder, module).build_model(detr_options(ours.model.config))
        theirs = Bare(*built)
    else:
        emb = load_upstream_emb(clones / folder).EMB
        theirs = Bare(emb(ours.model.configs, word_vectors(sizes, seed).numpy()), None)
    theirs.model.load_state_dict(ours.model.state_dict())
    return theirs


def word_vectors(sizes: Sizes, seed: int) -> Tensor:
    """Draw word vectors: (words, text_dim)."""
    return torch.randn(VOCABULARY, sizes.text_dim, generator=Generator().manual_seed(seed))


def detr_options(config: Any) -> Namespace:
    """Return what upstream's ``build_model`` reads, as ours was built."""
    return Namespace(
        **asdict(config),
        device=torch.device("cpu"),
        dset_name="hl",
        a_feat_dir=None,
        position_embedding="sine",
        t_feat_dim=config.text_dim,
        v_feat_dim=config.video_dim,
    )


def random_batch(base: str, sizes: Sizes, seed: int) -> Batch:
    """Draw a batch as the base's collate function would make it, on the CPU; its first row is of full length."""
    draw = Generator().manual_seed(seed)
    return detr_batch(sizes, draw) if isinstance(BASES[base], DetrBase) else emb_batch(sizes, draw)


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


@dataclass(frozen=True)
class Workload:
    """A model, its batch and its optimizer, ready to take steps."""

    task: Task
    batch: Batch
    optimizer: torch.optim.Optimizer | None
    """None in inference."""
    clip_norm: float
    amp: Amp
    device: torch.device

    @classmethod
    def of(cls, task: Task, batch: Batch, recipe: Any, setting: Setting) -> Workload:
        """Put a task on the setting's device, in its mode, with the recipe's optimizer."""
        device, optimizer = torch.device(setting.device), None
        model = task.model.to(device).train(setting.mode == "train")
        if isinstance(criterion := getattr(task, "criterion", None), nn.Module):
            criterion.to(device)
        if setting.mode == "train":
            fused = device.type == "cuda"
            optimizer = build_optimizer(model, recipe.optimizer, recipe.lr, recipe.weight_decay, fused=fused)
        return cls(task, to_device(batch, device), optimizer, recipe.clip_norm, AMP[setting.dtype], device)

    def step(self, model: nn.Module | None = None) -> Step:
        """Return a step as the training scripts take it, of the task's model or of the same compiled."""
        trained, optimizer = self.task.model if model is None else model, self.optimizer

        @torch.no_grad()
        def predict() -> None:
            with autocast(self.amp, self.device):
                self.task.predict(trained, self.batch)

        if optimizer is None:
            return predict

        def train() -> None:
            with autocast(self.amp, self.device):
                loss = self.task.losses(trained, self.batch, epoch=0)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), self.clip_norm)
            optimizer.step()

        return train

    def held(self) -> Iterator[Tensor]:
        """Yield every tensor that is there between two steps."""
        model, optimizer = self.task.model, self.optimizer
        yield from model.parameters()
        yield from model.buffers()
        yield from (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
        yield from self.batch.values()
        for state in optimizer.state.values() if optimizer is not None else ():
            yield from (value for value in state.values() if isinstance(value, Tensor))
