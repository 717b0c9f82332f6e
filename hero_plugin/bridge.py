"""The bridge: what a word that training never had means in terms of the words that it had."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.tensors import at_least_float32


class Bridge(nn.Module):
    """Lead unknown words to known ones: each becomes a mixture of its nearest words that training had.

    With ``c_k`` the cosine of a word ``w`` and a known word ``m_k``, ``n_k`` how often training had that one, and ``t``
    the temperature, ``w' = sum_k softmax(c_k / t + log n_k)_k m_k`` over the k of the highest weights among those with
    a cosine over ``nearest``. A base knows a word the better the more often it read it: so a word counts as often as it
    occurs. A word that is near nothing stays itself. ``expected`` adds a weight of the caller's to each known word,
    such as how well it fits the word's neighbours in the sentence: ``hero-plugin eval --bridge`` does that, with
    ``nearest=0.1``, and gains several times what the meaning alone does. Not in the paper: it needs no training, and
    works on any base that was trained on these vectors.

    Of vectors that depend on their sentence, as CLIP's of tokens do, nothing says which are known: ``of_tokens`` makes
    a bridge that tells by the distance.

    Args:
        known: (M, D) vectors of the words that training had.
        counts: (M,) how often it had each, at least once; None is equally often.
        neighbours: how many of them a word is mixed of.
        temperature: t; the lower it is, the more the nearest one counts.
        nearest: the lowest cosine to a known word that is trusted, in [-1, 1].
        known_from: a word with this cosine to its nearest known one, or more, is known, and stays itself; None: every
            word that comes is unknown.

    Example:
        >>> table = torch.randn(1000, 384)  # the first 800 words are training's
        >>> table[800:] = Bridge(table[:800])(table[800:])
    """

    known: Tensor
    log_counts: Tensor

    def __init__(
        self,
        known: Tensor,
        counts: Tensor | None = None,
        neighbours: int = 5,
        temperature: float = 0.1,
        nearest: float = 0.4,
        known_from: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(known, Tensor):
            raise TypeError(f"known must be a tensor, got {type(known).__name__}: torch.as_tensor(known) makes one")
        if known.ndim != 2 or not len(known):
            raise ValueError(f"known must be (M, D) with at least one word, got {tuple(known.shape)}")
        if counts is not None and not isinstance(counts, Tensor):
            raise TypeError(f"counts must be a tensor, got {type(counts).__name__}")
        if neighbours < 1 or not temperature > 0:
            raise ValueError(
                f"neighbours must be at least 1 and temperature positive, got {neighbours} and {temperature}"
            )
        for name, cosine in (("nearest", nearest), ("known_from", known_from)):
            if cosine is not None and not -1 <= cosine <= 1:
                raise ValueError(f"{name} is a cosine, in [-1, 1], got {cosine}")
        counts = known.new_ones(len(known)) if counts is None else counts
        if counts.shape != known.shape[:1] or not bool((counts >= 1).all()):
            raise ValueError(f"counts must be ({len(known)},) and at least 1, got {tuple(counts.shape)}")
        counts = counts.to(known.device, torch.promote_types(known.dtype, torch.float32))
        self.register_buffer("known", known)
        self.register_buffer("log_counts", counts.log())
        self.neighbours, self.temperature, self.nearest = neighbours, temperature, nearest
        self.known_from = known_from

    @classmethod
    def of_tokens(cls, tokens: Tensor, size: int = 4096, share: float = 0.03, seed: int = 0) -> Bridge:
        """Return a bridge to training's tokens, for vectors that depend on their sentence.

        It remembers some tokens, drawn at random. Others, which it does not remember, say how near a known one lies:
        all but ``share`` of them at ``known_from`` or nearer.

        Args:
            tokens: (M, D) vectors of tokens of training sentences, at least three; zeros, as padding is, are left out.
            size: how many it remembers, at most two thirds of all; its cost grows with them.
            share: of training's tokens, in (0, 1), that may count as unknown.
            seed: of the draw.

        Raises:
            ValueError: there are fewer than three tokens, or ``share`` lies outside (0, 1).

        Example:
            >>> words = Bridge.of_tokens(training_tokens)(words)  # (B, L, D), padding too: zeros stay zeros
        """
        if tokens.ndim != 2 or len(tokens := tokens[tokens.any(-1)]) < 3:
            raise ValueError(
                f"tokens must be (M, D) with at least three tokens that are not zeros, got {tuple(tokens.shape)}"
            )
        if not 0 < share < 1 or size < 1:
            raise ValueError(f"share must be between 0 and 1 and size at least 1, got {share} and {size}")
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed)).to(tokens.device)
        size = min(size, 2 * len(tokens) // 3)
        bridge, others = cls(tokens[order[:size]]), tokens[order[size : 3 * size]]
        bridge.known_from = float(torch.quantile(bridge._cosine(others).amax(-1), share))
        return bridge

    def forward(self, words: Tensor, expected: Tensor | None = None) -> Tensor:
        """Bridge unknown words (..., D) -> (..., D); without ``known_from``, known ones would be blurred."""
        shares, which = self.shares(words, expected)
        mixture = (shares.unsqueeze(-1) * self.known[which]).sum(-2)
        return torch.where(shares.any(-1, keepdim=True), mixture.to(words.dtype), words)

    def shares(self, words: Tensor, expected: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what unknown words (..., D) are mixed of: shares (..., k), greatest first, and rows of ``known``.

        Shares sum to 1; a known word that is not trusted has 0, and a word that stays itself has no others.
        ``expected`` (..., M), added to the weights, says how much more than by its count each known word is expected
        there, as a logarithm.
        """
        cosine = self._cosine(words)
        trusted = cosine > self.nearest
        if self.known_from is not None:
            # A cosine with itself is not always 1.
            trusted &= cosine.amax(-1, keepdim=True) < self.known_from - 1e-6
        weight = cosine / self.temperature + self.log_counts + (0 if expected is None else expected)
        weight = weight.masked_fill(~trusted, -torch.inf)
        weight, which = weight.topk(min(self.neighbours, len(self.known)), dim=-1)
        possible = weight.isfinite()  # none where no known word is trusted, or is expected at all
        shares = weight.masked_fill(~possible, -torch.inf).softmax(-1)
        return torch.where(possible.any(-1, keepdim=True), shares, torch.zeros_like(shares)), which

    def _cosine(self, words: Tensor) -> Tensor:
        if words.shape[-1] != self.known.shape[-1]:
            raise ValueError(f"words have {words.shape[-1]} numbers each, the known ones {self.known.shape[-1]}")
        with torch.autocast("cuda" if words.is_cuda else "cpu", enabled=False):  # or in half precision
            return F.normalize(at_least_float32(words), dim=-1) @ F.normalize(at_least_float32(self.known), dim=-1).T

    def get_extra_state(self) -> dict[str, Any]:
        """Return the choices, which a checkpoint keeps: ``of_tokens`` finds one of them in the tokens."""
        return {name: getattr(self, name) for name in ("neighbours", "temperature", "nearest", "known_from")}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over the choices of a checkpoint."""
        vars(self).update(state)

    def extra_repr(self) -> str:
        """Return the choices, for ``print(model)``."""
        choices = {"known": len(self.known), **self.get_extra_state()}
        return ", ".join(f"{name}={value}" for name, value in choices.items())
