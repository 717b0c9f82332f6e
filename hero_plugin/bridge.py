"""The bridge: what a word that training never had means in terms of the words that it had."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.attention import at_least_float32


class Bridge(nn.Module):
    """Lead unknown words to known ones: each becomes a mixture of its nearest words that training had.

    With ``m_k`` the known words of the highest cosine ``c_k`` to a word ``w``, and ``t`` the temperature,
    ``w' = sum_k softmax(c_k / t)_k m_k``, where the highest cosine is over ``nearest``. A word that is near nothing
    stays itself. Not in the paper: it needs no training, and works on any base that was trained on these vectors.

    Args:
        known: (M, D) vectors of the words that training had.
        neighbours: how many of them a word is mixed of.
        temperature: t; the lower it is, the more the nearest one counts.
        nearest: the lowest cosine to the nearest known word that is trusted, in [-1, 1].

    Example:
        >>> table = torch.randn(1000, 384)  # the first 800 words are training's
        >>> table[800:] = Bridge(table[:800])(table[800:])
    """

    known: Tensor

    def __init__(self, known: Tensor, neighbours: int = 5, temperature: float = 0.1, nearest: float = 0.4) -> None:
        super().__init__()
        if known.ndim != 2 or not len(known):
            raise ValueError(f"known must be (M, D) with at least one word, got {tuple(known.shape)}")
        if neighbours < 1 or not temperature > 0:
            raise ValueError(
                f"neighbours must be at least 1 and temperature positive, got {neighbours} and {temperature}"
            )
        self.register_buffer("known", known)
        self.neighbours, self.temperature, self.nearest = neighbours, temperature, nearest

    def forward(self, words: Tensor) -> Tensor:
        """Bridge unknown words (..., D) -> (..., D); do not give it known ones, which it would blur."""
        cosine = F.normalize(at_least_float32(words), dim=-1) @ F.normalize(at_least_float32(self.known), dim=-1).T
        near, which = cosine.topk(min(self.neighbours, len(self.known)), dim=-1)
        mixture = ((near / self.temperature).softmax(-1).unsqueeze(-1) * self.known[which]).sum(-2)
        return torch.where(near[..., :1] > self.nearest, mixture.to(words.dtype), words)

    def extra_repr(self) -> str:
        """Return the choices, for ``print(model)``."""
        return (
            f"known={len(self.known)}, neighbours={self.neighbours}, temperature={self.temperature}, "
            f"nearest={self.nearest}"
        )
