"""What is compared: bases at the requested sizes, plain or with HERO in some form, and the steps that they take."""

import copy
import math
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from hero_plugin import Grounding, HeroConfig, HeroModel, Pair, clip_labels, wrap_criterion, wrap_model
from hero_plugin.adapter import adapter_for
from hero_plugin.adapters.emb import EMB
from hero_plugin.hem import sinusoid
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.bench.upstream import load_upstream_detr, load_upstream_emb
from hero_plugin.integrations.training.bases import BASES, BaseName
from hero_plugin.integrations.training.batching import to_device
from hero_plugin.integrations.training.detr import DetrBase, DetrTask
from hero_plugin.integrations.training.distributed import Amp, autocast
from hero_plugin.integrations.training.emb import EmbBase, EmbTask
from hero_plugin.integrations.training.optim import build_optimizer
from hero_plugin.integrations.training.task import Batch, Task
from hero_plugin.levels import stack
from hero_plugin.losses import LastForward
from hero_plugin.tensors import Keys

Step = Callable[[], object]
ModelName = Literal["plain", "hero", "one", "pair", "checkpoint", "literal", "upstream", "upstream-hero"]
Mode = Literal["train", "inference"]
Format = Literal["fp32", "bf16"]

OURS: tuple[ModelName, ...] = ("plain", "hero", "one", "pair", "checkpoint", "literal")
UPSTREAM: tuple[ModelName, ...] = ("upstream", "upstream-hero")
WITHOUT_LEVELS = ("plain", "upstream")
TRAINING_ONLY = ("pair", "checkpoint")
"""In inference these do what "hero" does, but for a light head."""
INFERENCE_ONLY = ("one",)
"""In training all levels run."""

MEANINGS = {
    "plain": "plain base",
    "hero": "HERO",
    "one": "HERO, one of",
    "pair": "HERO pair",
    "checkpoint": "HERO checkpoint",
    "literal": "literal paper",
    "upstream": "upstream",
    "upstream-hero": "HERO on upstream",
}


DEVICE_NAMES = {"cpu": "CPU", "cuda": "GPU"}


@dataclass(frozen=True)
class Setting:
    """What all variants in a comparison share; they are measured in turns, on one batch."""

    base: BaseName
    mode: Mode
    device: str
    dtype: Format = "fp32"

    def __str__(self) -> str:
        step = "training step" if self.mode == "train" else "inference"
        return f"{BASES[self.base].config.title}, {step}, {DEVICE_NAMES[self.device]}, {self.dtype}"


@dataclass(frozen=True)
class Variant:
    """One of the compared models: a base, plain or with HERO in some form."""

    name: ModelName
    levels: int = 0
    """Of HERO; 0 for a plain base."""

    def __str__(self) -> str:
        levels = f"{self.levels} level{'s' * (self.levels > 1)}"
        if self.name == "one":  # of so many
            return f"{MEANINGS[self.name]} {levels}"
        return MEANINGS[self.name] + (f", {levels}" if self.levels else "")


def variants_of(names: Sequence[ModelName], levels: Sequence[int], mode: Mode) -> list[Variant]:
    """Return every named variant, those with HERO at every number of levels; plain ones first."""
    kept = [name for name in names if name not in (INFERENCE_ONLY if mode == "train" else TRAINING_ONLY)]
    plain = [Variant(name) for name in kept if name in WITHOUT_LEVELS]
    with_levels = [Variant(name, count) for count in levels for name in kept if name not in WITHOUT_LEVELS]
    return plain + [each for each in with_levels if each.name != "one" or each.levels > 1]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a batch and of the model that takes it."""

    batch: int
    clips: int
    words: int
    dim: int
    video_dim: int
    text_dim: int

    def __str__(self) -> str:
        return f"B={self.batch} T={self.clips} L={self.words} D={self.dim}"


PUBLISHED_SIZES: Mapping[type, Sizes] = {
    # Charades-STA: I3D features and GloVe vectors.
    EmbBase: Sizes(batch=16, clips=128, words=12, dim=128, video_dim=1024, text_dim=300),
    # QVHighlights: SlowFast, CLIP and the clip's two ends.
    DetrBase: Sizes(batch=32, clips=75, words=32, dim=256, video_dim=2818, text_dim=512),
}
"""The sizes that the bases' authors published, by kind of base."""


def sizes_of(base: str, **changes: int | None) -> Sizes:
    """Return the published sizes of a base, but for what is given; raise ``UserError`` where a size is not positive."""
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    return replace(PUBLISHED_SIZES[type(BASES[base])], **given)


VOCABULARY, CHARACTERS, CLIP_SECONDS, HIGHEST_SCORE, MOST_MOMENTS = 1000, 30, 2.0, 4.0, 2


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
            config = replace(
                hero,
                levels=variant.levels,
                relevance="pair" if variant.name == "pair" else "base",
                checkpoint=variant.name == "checkpoint",
                inference=(1,) if variant.name == "one" else None,  # the level after the words themselves
            )
            if variant.name == "literal":
                config = replace(config, perturb="mask", level_weights="learned")
                base = LiteralHero(base, config, adapter_for(base))
            else:
                base = wrap_model(base, config=config)
            criterion = None if criterion is None else wrap_criterion(criterion, config)
        # The inputs are random: there is nothing to collate.
        collate: Any = None
        if criterion is None:
            configs: Any = self.model.configs
            return EmbTask(base, collate, configs, recipe.epochs)
        return DetrTask(base, criterion, collate)


def build_bare(base: str, sizes: Sizes, seed: int) -> Bare:
    """Build the reference implementation of a base; raise ``UserError`` where it cannot be built with these sizes."""
    entry, recipe = BASES[base], recipe_of(base, sizes)
    torch.manual_seed(seed)
    try:
        if isinstance(entry, DetrBase):
            return Bare(*entry.build(recipe, sizes.text_dim, sizes.video_dim))
        config = replace(recipe.emb(sizes.video_dim, sizes.text_dim), word_size=VOCABULARY + 2, char_size=CHARACTERS)
        return Bare(EMB(config, word_vectors(sizes, seed)), None)
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
        config: Any = ours.model.config
        theirs = {"position_embedding": "sine", "t_feat_dim": config.text_dim, "v_feat_dim": config.video_dim}
        options = Namespace(**asdict(config), **theirs, device=torch.device("cpu"), dset_name="hl", a_feat_dir=None)
        bare = Bare(*load_upstream_detr(clones / folder, module).build_model(options))
    else:
        emb = load_upstream_emb(clones / folder).EMB
        bare = Bare(emb(ours.model.configs, word_vectors(sizes, seed).numpy()), None)
    bare.model.load_state_dict(ours.model.state_dict())
    return bare


def word_vectors(sizes: Sizes, seed: int) -> Tensor:
    """Draw word vectors: (words, text_dim)."""
    return torch.randn(VOCABULARY, sizes.text_dim, generator=Generator().manual_seed(seed))


def random_batch(base: str, sizes: Sizes, seed: int) -> Batch:
    """Draw a batch as the base's collate function would make it, on the CPU; its first row is of full length."""
    draw = Generator().manual_seed(seed)
    return detr_batch(sizes, draw) if isinstance(BASES[base], DetrBase) else emb_batch(sizes, draw)


def emb_batch(sizes: Sizes, draw: Generator) -> Batch:
    """Return a batch with the keys and shapes of ``VectorCollate`` that EMB reads."""
    clips, v_mask = random_lengths(sizes.batch, sizes.clips, draw)
    _, q_mask = random_lengths(sizes.batch, sizes.words, draw)
    word_ids = torch.randint(1, VOCABULARY + 2, q_mask.shape, generator=draw) * q_mask.long()
    video = torch.randn(*v_mask.shape, sizes.video_dim, generator=draw) * v_mask.unsqueeze(-1)
    first = (torch.rand(sizes.batch, generator=draw) * clips).long()
    last = first + (torch.rand(sizes.batch, generator=draw) * (clips - first)).long()
    given = {"words": word_ids, "word_mask": q_mask, "video": video, "video_mask": v_mask}
    return {**given, "clips": clips, "durations": clips * CLIP_SECONDS, "first": first, "last": last}


def detr_batch(sizes: Sizes, draw: Generator) -> Batch:
    """Return a batch with the keys and shapes of ``DetrCollate``, with one or two moments per query."""
    clips, v_mask = random_lengths(sizes.batch, sizes.clips, draw)
    words, q_mask = random_lengths(sizes.batch, sizes.words, draw)
    width = 0.05 + 0.25 * torch.rand(sizes.batch, MOST_MOMENTS, generator=draw)
    start = torch.rand(sizes.batch, MOST_MOMENTS, generator=draw) * (1 - width)
    counts = torch.randint(1, MOST_MOMENTS + 1, (sizes.batch,), generator=draw)
    spans = torch.stack([start + width / 2, width], dim=-1)
    spans = spans * (torch.arange(MOST_MOMENTS) < counts.unsqueeze(1)).unsqueeze(-1)
    inside = clip_labels([row[:count] for row, count in zip(spans, counts.tolist(), strict=True)], v_mask)
    return {
        "src_txt": torch.randn(*q_mask.shape, sizes.text_dim, generator=draw) * q_mask.unsqueeze(-1),
        "src_txt_mask": q_mask,
        "src_vid": torch.randn(*v_mask.shape, sizes.video_dim, generator=draw) * v_mask.unsqueeze(-1),
        "src_vid_mask": v_mask,
        "clips": clips,
        "words": words,
        "durations": clips * CLIP_SECONDS,
        "spans": spans,
        "moment_counts": counts,
        "hard_positive": torch.full_like(counts, -1),
        "hard_negative": torch.full_like(counts, -1),
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
    def of(cls, task: Task, batch: Batch, recipe: Any, setting: Setting) -> "Workload":
        """Put a task on the setting's device, in its mode, with the recipe's optimizer."""
        device, optimizer = torch.device(setting.device), None
        amp: Amp = "bf16" if setting.dtype == "bf16" else "none"
        model = task.model.to(device).train(setting.mode == "train")
        if isinstance(criterion := getattr(task, "criterion", None), nn.Module):
            criterion.to(device)
        if setting.mode == "train":
            optimizer = build_optimizer(model, recipe.optimizer, recipe.lr, recipe.weight_decay)
        return cls(task, to_device(batch, device), optimizer, recipe.clip_norm, amp, device)

    def step(self, compiled: Any = None) -> Step:
        """Return a step as the training scripts take it, of the task's model or of the same compiled."""
        trained, optimizer = self.task.model if compiled is None else compiled, self.optimizer

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


def workloads_of(
    setting: Setting, variants: Sequence[Variant], sizes: Sizes, seed: int, hero: HeroConfig, clones: Path | None
) -> dict[Variant, Workload]:
    """Build every variant with the same base weights and the same batch."""
    recipe, batch = recipe_of(setting.base, sizes), random_batch(setting.base, sizes, seed)
    ours = build_bare(setting.base, sizes, seed)
    theirs = None if clones is None else build_upstream(setting.base, ours, sizes, seed, clones)
    workloads = {}
    for variant in variants:
        bare = theirs if variant.name in UPSTREAM else ours
        if bare is None:
            raise ValueError(f"{variant} needs the folder of upstream's clones")
        workloads[variant] = Workload.of(bare.task(variant, hero, recipe), batch, recipe, setting)
    return workloads


class LiteralHero(HeroModel):
    """The modules, parameters and losses of ``HeroModel`` with another forward.

    One pass of the whole base for every level and, in training, one more for every masked level; the text encoder runs
    once and is tapped. Nothing is folded, left out or fused. A query without a word is not provided for.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the base once per level, and combine its outputs."""
        last = self.last_forward = LastForward()
        if not self.config.active:
            return self.base(*args, **kwargs)
        pair = self.grounder.embed(*args, **kwargs)
        queries = self.text_levels(pair)
        passes = [self.whole_pass(pair, level, words) for level, words in enumerate(queries)]
        kinds = self.grounder.kinds
        outputs = self.hero.combine(stack([grounding.outputs for grounding, _ in passes], kinds), kinds)
        if hasattr(self.grounder, "complete"):
            outputs = self.grounder.complete(outputs, pair)
        last.video_mask = pair.video_mask
        last.relevance = self.combined([relevance for _, relevance in passes], pair)
        if self.training and self.hero.cmtr is not None:
            masked = [self.masked(level, words, pair) for level, words in enumerate(queries)]
            passes = [self.whole_pass(pair, level, words) for level, words in enumerate(masked)]
            last.masked_relevance = self.combined([relevance for _, relevance in passes], pair)
        if self.training and isinstance(outputs, dict):
            outputs["hero"] = last.tensors()
        return outputs

    def text_levels(self, pair: Pair) -> list[Tensor]:
        """Apply HEM: ``Q_0 .. Q_{N-1}``, each (B, L, D)."""
        hem, hidden = self.hero.hem, pair.query
        if hem is None:
            return [hidden]
        real = pair.query_mask.bool()
        keys = Keys.of(real.unsqueeze(1))
        positions = sinusoid(hidden.shape[1], hem.dim, hidden) if hem.positions else None
        levels = [hidden]
        for depth, layer in enumerate(hem.layers, start=1):
            hidden = layer(hidden, keys, positions)
            if depth % hem.stride == 0:
                levels.append(hidden * real.unsqueeze(-1))
        return levels

    def whole_pass(self, pair: Pair, level: int, words: Tensor) -> tuple[Grounding, Tensor]:
        """Call the base on ``(V_i, Q_i)``. Return its outputs and the clips' relevance (B, T)."""
        clips = self.filtered(pair.video, words, pair.query_mask, level)
        grounding = self.grounder.ground(pair.at_levels(clips.unsqueeze(0), words.unsqueeze(0)))
        if self.hero.relevance is None:
            assert grounding.relevance is not None
            return grounding, grounding.relevance
        head = self.hero.relevance
        return grounding, head(clips.unsqueeze(0), words.unsqueeze(0), pair.query_mask).squeeze(0)

    def filtered(self, video: Tensor, words: Tensor, query_mask: Tensor, level: int) -> Tensor:
        """Apply SGVF: ``V * sigmoid(softmax(V Q_i^T / sqrt(d)) Q_i)``, or with the residual gate. (B, T, D)."""
        sgvf = self.hero.sgvf
        if sgvf is None:
            return video
        query, key, value = video, words, words
        if sgvf.projections is not None:
            query, key, value = (x @ w[level] for x, w in zip((query, key, value), sgvf.projections, strict=True))
        scores = query @ key.transpose(1, 2) / math.sqrt(video.shape[-1])
        scores = scores.masked_fill(~query_mask.bool().unsqueeze(1), -1e9)
        gate = torch.sigmoid(scores.softmax(dim=-1) @ value)
        if sgvf.strength is None:
            return video * gate
        return video * (1 + sgvf.strength[level] * (2 * gate - 1))

    def masked(self, level: int, words: Tensor, pair: Pair) -> Tensor:
        """Apply CMTR: ``Q_i^m``, a level's words of which some are replaced by its mask token. (B, L, D)."""
        cmtr = self.hero.cmtr
        assert cmtr is not None and cmtr.mask_token is not None
        dropped = draw_masked(pair.query_mask.bool(), cmtr.mask_ratio)
        return torch.where(dropped.unsqueeze(-1), cmtr.mask_token[level].to(words.dtype), words)

    def combined(self, relevance: list[Tensor], pair: Pair) -> Tensor:
        """Combine the relevance over all levels: (B, T)."""
        combined = self.hero.combine(torch.stack(relevance), {})
        return combined if self.hero.ranked is None else self.hero.ranked(combined, pair.video_mask)


def draw_masked(real: Tensor, ratio: float) -> Tensor:
    """Draw words to mask: each with probability ``ratio``, but of two or more at least one, and not all.

    real: (B, L) bool -> (B, L) bool.
    """
    noise = torch.rand(real.shape, device=real.device)
    dropped = (noise < ratio) & real
    several = real.sum(dim=-1, keepdim=True) > 1
    place = torch.arange(real.shape[-1], device=real.device)
    first = noise.masked_fill(~real, 2.0).argmin(dim=-1, keepdim=True)
    last = noise.masked_fill(~real, -1.0).argmax(dim=-1, keepdim=True)
    return (dropped | (several & (place == first))) & ~(several & (place == last))
