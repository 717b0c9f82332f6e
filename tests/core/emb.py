"""A small EMB, a batch for it, and its training loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hero_plugin.adapters.emb import EMB, EMBConfig
from tests.core.bases import lengths_mask

WORDS = 12


def config(**changes: Any) -> EMBConfig:
    """Sizes that run in milliseconds."""
    small = {
        "word_size": WORDS + 2,
        "word_dim": 10,
        "char_size": 5,
        "char_dim": 4,
        "video_feature_dim": 6,
        "max_pos_len": 24,
        "dim": 16,
        "num_heads": 2,
        "num_layers": 1,
        "drop_rate": 0.0,
        "downscale": 4,
        "windows": (16,),
    }
    return EMBConfig(**{**small, **changes})


def vectors() -> Tensor:
    return torch.randn(WORDS, 10, generator=torch.Generator().manual_seed(3))


def emb(**changes: Any) -> EMB:
    """The reference EMB."""
    return EMB(config(**changes), vectors())


class Batch(NamedTuple):
    """What EMB's forward takes, in order."""

    word_ids: Tensor
    char_ids: Tensor
    video_features: Tensor
    v_mask: Tensor
    q_mask: Tensor


def batch(clips: tuple[int, ...] = (16, 9, 12), words: tuple[int, ...] = (5, 2, 4), dtype=torch.float32) -> Batch:
    """A random batch; word 1 of every query is unknown, so that the vector for unknown words is used."""
    q_mask = lengths_mask(words, dtype)
    word_ids = torch.randint(2, WORDS + 2, q_mask.shape)
    word_ids[:, 0] = 1
    word_ids = word_ids * q_mask.long()
    char_ids = torch.randint(1, 5, (*q_mask.shape, 6)) * q_mask.long().unsqueeze(-1)
    v_mask = lengths_mask(clips, dtype)
    features = torch.randn(*v_mask.shape, 6, dtype=dtype) * v_mask.unsqueeze(-1)
    return Batch(word_ids, char_ids, features, v_mask, q_mask)


def moments(v_mask: Tensor) -> Tensor:
    """First and last clip of each moment, (B, 2): the second quarter of the video."""
    clips = v_mask.sum(1).long()
    return torch.stack([clips // 4, clips // 2], 1)


def loss(model: nn.Module | Any, outputs: Any, v_mask: Tensor) -> Tensor:
    """EMB's three losses as its runner adds them; a wrapped model's compute_loss adds HERO's."""
    h_score, start, end, proposals, p_score, p_mask = outputs
    moment = moments(v_mask)
    location = model.compute_loss(start, end, moment[:, 0], moment[:, 1], proposals, p_score, p_mask, 0.5)
    highlight = model.compute_highlight_loss(h_score, None, v_mask, moment, proposals, p_score, p_mask, 0.5, 0.1)
    ranking = model.compute_ranking_loss(moment.float(), proposals.float(), p_score, p_mask, 0.3, 0.7)
    return location + 5.0 * highlight + ranking
