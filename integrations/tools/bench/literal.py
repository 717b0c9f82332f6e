"""HERO as its paper reads, in plain loops: the plug-in is measured against it, and must equal it."""

import math
from typing import Any

import torch
from torch import Tensor

from hero_plugin import Grounding, HeroModel, Pair
from hero_plugin.attention import Keys
from hero_plugin.hem import sinusoid
from hero_plugin.levels import stack
from hero_plugin.model import LastForward


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
