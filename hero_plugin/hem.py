"""HEM: hierarchical text embeddings, from one text encoder tapped at several depths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hero_plugin.tensors import Keys, Linear, attend, expect_shape


class HEM(nn.Module):
    """Hierarchical Embedding Module (HERO, arXiv 2603.06732, "hierarchical text embeddings").

    ``Q_0 = Q``;  ``Q_i = Encoder layers (i-1)*stride+1 .. i*stride (Q_{i-1})``: from the words themselves to
    what the sentence means. One Transformer encoder of ``stride * (levels - 1)`` layers, tapped ``levels`` times
    (paper: 6 layers, taps after 0, 2, 4 and 6).

    Args:
        dim: D, the base's hidden size.
        levels: N; 1 has no encoder and returns the query alone.
        stride: encoder layers between two taps.
        num_heads: attention heads; divides ``dim``.
        feedforward: hidden size of the feed-forward part; None is ``4 * dim``.
        dropout: dropout on attention weights and on both residual branches.
        norm: ``"pre"`` or ``"post"`` (the vanilla encoder).
        identity_start: every residual branch starts at zero, so all levels start equal to Q (``norm="pre"`` only).
        positions: add sinusoidal positions to what attention compares (not to what it carries).

    Example:
        >>> hem = HEM(dim=128, levels=4)
        >>> hem(torch.randn(2, 12, 128), torch.ones(2, 12)).shape
        torch.Size([4, 2, 12, 128])
    """

    def __init__(
        self,
        dim: int,
        levels: int = 4,
        stride: int = 2,
        num_heads: int = 8,
        feedforward: int | None = None,
        dropout: float = 0.1,
        norm: str = "pre",
        identity_start: bool = True,
        positions: bool = True,
    ) -> None:
        super().__init__()
        if levels > 1 and dim % num_heads:
            raise ValueError(
                f"dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}: choose another, as in "
                "wrap_model(base, num_heads=4)"
            )
        self.dim, self.levels, self.stride, self.positions = dim, levels, stride, positions
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, feedforward or 4 * dim, dropout, norm, identity_start)
            for _ in range(stride * (levels - 1))
        )

    def forward(self, query: Tensor, query_mask: Tensor, levels: Sequence[int] | None = None) -> Tensor:
        """Return the levels of a query.

        Args:
            query: (B, L, D) word features.
            query_mask: (B, L), 1/True at real words.
            levels: which ones, from 0; None is all. No layer runs beyond the highest of them.

        Returns:
            (N, B, L, D), N the number of ``levels``. Level 0 is ``query`` itself; from level 1 on, padded positions are
            zeros.
        """
        expect_shape("query", query, "B L D", (None, None, self.dim))
        batch, length, _ = query.shape
        expect_shape("query_mask", query_mask, "B L", (batch, length))
        real = query_mask.bool()
        positions = None
        if self.positions:  # of a word among the real ones: padding may be on the left
            positions = sinusoid(length, self.dim, query)[(real.cumsum(-1) - 1).clamp(min=0)]
        keys = Keys.of(real.unsqueeze(1))
        wanted = range(self.levels) if levels is None else levels
        tapped, hidden = [query], query
        for depth, layer in zip(range(1, self.stride * max(wanted) + 1), self.layers, strict=False):
            hidden = layer(hidden, keys, positions)
            if depth % self.stride == 0:
                tapped.append(hidden.masked_fill(~real.unsqueeze(-1), 0.0))
        return torch.stack([tapped[level].to(hidden.dtype) for level in wanted])

    def extra_repr(self) -> str:
        """Return the choices, for ``print(model)``."""
        return f"levels={self.levels}, stride={self.stride}"


class EncoderLayer(nn.Module):
    """One Transformer encoder layer whose padding never reaches a real word."""

    def __init__(
        self, dim: int, num_heads: int, feedforward: int, dropout: float, norm: str, identity_start: bool
    ) -> None:
        super().__init__()
        self.num_heads, self.pre_norm, self.dropout = num_heads, norm == "pre", dropout
        self.compare = Linear(dim, 2 * dim)
        self.value = Linear(dim, dim)
        self.output = Linear(dim, dim)
        self.expand = Linear(dim, feedforward)
        self.contract = Linear(feedforward, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.feedforward_norm = nn.LayerNorm(dim)
        for linear in (self.compare, self.value, self.output):
            linear.start(weight=nn.init.xavier_uniform_, bias=nn.init.zeros_)
        for linear in (self.output, self.contract) if identity_start else ():
            linear.start(weight=nn.init.zeros_, bias=nn.init.zeros_)

    def forward(self, words: Tensor, keys: Keys, positions: Tensor | None = None) -> Tensor:
        """Encode words (B, L, D), given the keys of a mask (B, 1, L) and positions (B, L, D) or None -> (B, L, D)."""
        if self.pre_norm:
            words = words + self._attention(self.attention_norm(words), keys, positions)
            return words + self._feedforward(self.feedforward_norm(words))
        words = self.attention_norm(words + self._attention(words, keys, positions))
        return self.feedforward_norm(words + self._feedforward(words))

    def _attention(self, words: Tensor, keys: Keys, positions: Tensor | None) -> Tensor:
        placed = words if positions is None else words + positions
        query, key = rearrange(self.compare(placed), "b l (two h d) -> two b h l d", two=2, h=self.num_heads)
        value = rearrange(self.value(words), "b l (h d) -> b h l d", h=self.num_heads)
        context = attend(query, key, value, keys, self.dropout if self.training else 0.0)
        return self._drop(self.output(rearrange(context, "b h l d -> b l (h d)")))

    def _feedforward(self, words: Tensor) -> Tensor:
        return self._drop(self.contract(self._drop(F.relu(self.expand(words)))))

    def _drop(self, branch: Tensor) -> Tensor:
        return F.dropout(branch, self.dropout, self.training)


def sinusoid(length: int, dim: int, like: Tensor) -> Tensor:
    """Return sinusoidal positions (length, dim) of "Attention Is All You Need", of the device and dtype of ``like``."""
    wide = torch.promote_types(like.dtype, torch.float32)  # half precision cannot count positions
    place = torch.arange(length, device=like.device, dtype=wide).unsqueeze(1)
    even = torch.arange(0, dim, 2, device=like.device, dtype=wide)
    angle = place * torch.exp(even * (-math.log(10000.0) / dim))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim].to(like.dtype)
