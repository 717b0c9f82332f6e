"""Word embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.dropout import Dropout
from hero_plugin.adapters.emb.layers import Conv1D

PAD, UNK, FIRST_WORD = 0, 1, 2


class WordEmbedding(nn.Module):
    """Frozen word vectors with a learned vector for unknown words, or a learned table without them."""

    def __init__(
        self, num_words: int, word_dim: int, drop_rate: float, word_vectors: Tensor | np.ndarray | None
    ) -> None:
        super().__init__()
        self.is_pretrained = word_vectors is not None
        if self.is_pretrained:
            vectors = torch.as_tensor(word_vectors, dtype=torch.float32).detach().clone()
            self.pad_vec = nn.Parameter(torch.zeros(1, word_dim), requires_grad=False)
            self.unk_vec = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, word_dim)))
            self.glove_vec = nn.Parameter(vectors, requires_grad=False)
        else:
            self.word_emb = nn.Embedding(num_words, word_dim, padding_idx=PAD)
        self.dropout = Dropout(drop_rate)

    def forward(self, word_ids: Tensor) -> Tensor:
        """Embed: word_ids (B, L) long, 0 padding, 1 unknown -> (B, L, word_dim)."""
        if not self.is_pretrained:
            return self.dropout(self.word_emb(word_ids))
        # Looked up beside the table, not in one joined with it: joining copies the vocabulary every step.
        known = F.embedding((word_ids - FIRST_WORD).clamp(min=0), self.glove_vec)
        ids = word_ids.unsqueeze(-1)
        words = torch.where(ids == UNK, self.unk_vec, known)
        return self.dropout(torch.where(ids == PAD, self.pad_vec.detach(), words))


class CharacterEmbedding(nn.Module):
    """Parameters of upstream's character embedding, which its forward computes and never uses.

    Kept, frozen, so that checkpoints load; nothing here is ever computed.
    """

    def __init__(self, num_chars: int, char_dim: int) -> None:
        super().__init__()
        self.char_emb = nn.Embedding(num_chars, char_dim, padding_idx=0)
        self.char_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(char_dim, channels, kernel_size=(1, width)))
            for width, channels in ((1, 10), (2, 20), (3, 30), (4, 40))
        )
        self.requires_grad_(False)


class Embedding(nn.Module):
    """Word embedding, projected to the model's width."""

    def __init__(
        self,
        num_words: int,
        num_chars: int,
        word_dim: int,
        char_dim: int,
        drop_rate: float,
        out_dim: int,
        word_vectors: Tensor | np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.word_emb = WordEmbedding(num_words, word_dim, drop_rate, word_vectors)
        self.char_emb = CharacterEmbedding(num_chars, char_dim)
        self.linear = Conv1D(word_dim, out_dim)

    def forward(self, word_ids: Tensor, char_ids: Any = None) -> Tensor:
        """Embed: word_ids (B, L) long -> (B, L, out_dim). ``char_ids`` is accepted, as upstream's, and not read."""
        return self.linear(self.word_emb(word_ids))
