"""Post-norm attention blocks over words, clips or proposals."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from hero_plugin.adapters.attention import attend_with_bias
from hero_plugin.adapters.dropout import Dropout
from hero_plugin.adapters.emb.layers import Conv1D, mask_bias

NORM_EPSILON = 1e-6


def pair_mask(source_mask: Tensor | None, target_mask: Tensor | None) -> Tensor | None:
    """Combine (B, S) and (B, T) to (B, T, S), 1 where both are real; None where either is missing."""
    if source_mask is None or target_mask is None:
        return None
    return target_mask.unsqueeze(2) * source_mask.unsqueeze(1)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention whose heads are concatenated and not projected again."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got dim={dim} and num_heads={num_heads}")
        self.num_heads = num_heads
        self.query = Conv1D(dim, dim)
        self.key = Conv1D(dim, dim)
        self.value = Conv1D(dim, dim)
        self.dropout = Dropout(drop_rate)

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from the query to the source.

        Args:
            query: (B, T, D).
            source: (B, S, D).
            mask: (B, S), (B, T, S) or None, 1 where attention is allowed.

        Returns:
            (B, T, D).
        """
        q, k, v = self._heads(self.query(query)), self._heads(self.key(source)), self._heads(self.value(source))
        bias = None
        if mask is not None:
            bias = mask_bias(mask)
            bias = bias[:, None, None] if mask.dim() == 2 else bias[:, None]
        context = attend_with_bias(q, k, v, bias, self.dropout.p if self.dropout.training else 0.0)
        return context.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        """Split the last axis into heads: (B, L, heads·d) -> (B, heads, L, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class AttentionLayer(nn.Module):
    """Layer of attention and two linear layers, each added to its input and normalised."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, num_heads, drop_rate)
        self.dense = nn.Sequential(Conv1D(dim, dim), nn.ReLU(), Conv1D(dim, dim))
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.dropout = Dropout(drop_rate)

    def forward(self, query: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend: query (B, T, D), source (B, S, D) or None for self-attention, mask as in attention -> (B, T, D)."""
        return self.attend(query, query, query if source is None else source, mask)

    def attend(self, residual: Tensor, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """Attend as in ``forward``, from a ``query`` that need not be the ``residual`` to which the result is added."""
        context = self.attention(query, source, mask)
        hidden = self.norm1(residual + self.dropout(context))
        return self.norm2(hidden + self.dropout(self.dense(hidden)))


class SelfAttentionBlock(nn.Module):
    """Stack of layers in which a sequence attends to itself."""

    layer_type: ClassVar[type[AttentionLayer]] = AttentionLayer

    def __init__(self, dim: int, num_layers: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.layer_type(dim, num_heads, drop_rate) for _ in range(num_layers))

    def forward(self, target: Tensor, tmask: Tensor | None = None) -> Tensor:
        """Run the layers: target (B, T, D), tmask (B, T) -> (B, T, D)."""
        for layer in self.layers:
            target = layer(target, mask=tmask)
        return target


class CrossAttentionBlock(nn.Module):
    """Stack of layers in which a target attends to a source."""

    layer_type: ClassVar[type[AttentionLayer]] = AttentionLayer

    def __init__(self, dim: int, num_layers: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.layer_type(dim, num_heads, drop_rate) for _ in range(num_layers))

    def forward(
        self, source: Tensor, target: Tensor, smask: Tensor | None = None, tmask: Tensor | None = None
    ) -> Tensor:
        """Run the layers: source (B, S, D), target (B, T, D), smask (B, S), tmask (B, T) -> (B, T, D)."""
        mask = pair_mask(smask, tmask)
        for layer in self.layers:
            target = layer(target, source, mask)
        return target
