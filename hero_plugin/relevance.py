"""Clip relevance as logits: of a base whose score only ranks clips, and of a light head on the pair {Q_i, V_i}."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.tensors import at_least_float32, expect_shape, mean_of_words


class PairRelevance(nn.Module):
    """Per-clip relevance logits from a level's words and its filtered clips (``relevance="pair"``).

    The query is the mean of its real words; ``RS = w · relu(A v ⊙ B q + C v) + b`` for every clip ``v``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.clip = nn.Linear(dim, 2 * dim)
        self.word = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1)

    def forward(self, video: Tensor, levels: Tensor, query_mask: Tensor) -> Tensor:
        """Score video (N, B, T, D) with levels (N, B, L, D) and query_mask (B, L) -> logits (N, B, T)."""
        expect_shape("query_mask", query_mask, "B L", (None, None))
        batch, length = query_mask.shape
        expect_shape("levels", levels, "N B L D", (None, batch, length, self.dim))
        expect_shape("video", video, "N B T D", (levels.shape[0], batch, None, self.dim))
        sentence = mean_of_words(levels, query_mask)
        compared, alone = torch.chunk(self.clip(video), 2, dim=-1)
        return self.score(F.relu(compared * self.word(sentence).unsqueeze(-2) + alone)).squeeze(-1)


class RankedRelevance(nn.Module):
    """The clip score of a base that only ranks clips, as logits: ``RS = exp(a) (s - mean of s over the video) + b``.

    A saliency score is trained by comparing clips: its zero and its scale mean nothing, and negative pairs can push all
    of a video's scores far from zero, where a binary cross-entropy sees the offset alone. ``a`` and ``b`` are learned
    and start at zero; they have the shape (1,), as FSDP cannot shard a scalar. The consistency loss, a softmax over the
    clips, does not see the offset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale, self.offset = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with the centred score as it is."""
        nn.init.zeros_(self.log_scale)
        nn.init.zeros_(self.offset)

    def forward(self, score: Tensor, video_mask: Tensor) -> Tensor:
        """Turn scores (B, T), video_mask (B, T) 1/True at real clips -> logits (B, T); padded clips hold the offset.

        In float32 at least.
        """
        real = video_mask.bool()
        count = real.sum(-1, keepdim=True).clamp(min=1)
        score = at_least_float32(score)  # a sum over a long video is past what half precision can hold
        centred = score - score.masked_fill(~real, 0.0).sum(-1, keepdim=True) / count
        return self.log_scale.exp() * centred.masked_fill(~real, 0.0) + self.offset

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Older files have scalars here; torch itself takes (1,) for a scalar, so that older releases read newer ones.
        for name in (f"{prefix}log_scale", f"{prefix}offset"):
            if name in state_dict:
                state_dict[name] = state_dict[name].reshape(-1)
        super()._load_from_state_dict(state_dict, prefix, *rest)
