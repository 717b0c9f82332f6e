"""Moment-DETR's transformer: clips and words in one sequence, learned queries that read it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.attention import MultiheadAttention, attendable
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.encoder import Encoder
from hero_plugin.adapters.detr.layers import xavier_
from hero_plugin.adapters.dropout import Dropout


class Transformer(nn.Module):
    """Moment-DETR's transformer: encoder and decoder, called as upstream's."""

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.d_model, self.nhead = config.hidden_dim, config.nheads
        self.encoder = Encoder(config, nn.ReLU)
        self.decoder = Decoder(config)
        xavier_(self)

    def forward(self, src: Tensor, mask: Tensor, query_embed: Tensor, pos_embed: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode.

        Args:
            src: (B, L, D), the clips, then the words.
            mask: (B, L), True at padding.
            query_embed: (queries, D).
            pos_embed: (B, L, D).

        Returns:
            Decoder states (layers, B, queries, D) and memory (B, L, D).
        """
        memory = self.encoder(src, attendable(mask)[:, None, None], pos_embed)
        query_embed = query_embed.unsqueeze(1).expand(-1, src.shape[0], -1)
        states = self.decoder(
            torch.zeros_like(query_embed),
            memory.transpose(0, 1),
            memory_key_padding_mask=mask,
            pos=pos_embed.transpose(0, 1),
            query_pos=query_embed,
        )
        return states.transpose(1, 2), memory


class Decoder(nn.Module):
    """``dec_layers`` layers; called as upstream's, with the sequence before the batch."""

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.dec_layers))
        self.norm = nn.LayerNorm(config.hidden_dim)

    def forward(
        self, tgt: Tensor, memory: Tensor, *, memory_key_padding_mask: Tensor, pos: Tensor, query_pos: Tensor
    ) -> Tensor:
        """Decode.

        Args:
            tgt: (queries, B, D), initial states.
            memory: (L, B, D).
            memory_key_padding_mask: (B, L), True at padding.
            pos: (L, B, D), positions of the memory.
            query_pos: (queries, B, D), positions of the queries.

        Returns:
            Normalised states of every layer, (layers, queries, B, D).
        """
        keep = attendable(memory_key_padding_mask)[:, None, None]
        x, query_pos, memory, pos = (part.transpose(0, 1) for part in (tgt, query_pos, memory, pos))
        key = memory + pos
        states = []
        for layer in self.layers:
            x = layer(x, key, memory, keep, query_pos)
            states.append(self.norm(x))
        return torch.stack(states).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Layer in which queries attend to one another, then to the memory; then a feed-forward part."""

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.pre_norm = config.pre_norm
        self.self_attn = MultiheadAttention(dim, config.nheads, config.dropout)
        self.multihead_attn = MultiheadAttention(dim, config.nheads, config.dropout)
        self.linear1 = nn.Linear(dim, config.dim_feedforward)
        self.dropout = Dropout(config.dropout)
        self.linear2 = nn.Linear(config.dim_feedforward, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout1, self.dropout2, self.dropout3 = (Dropout(config.dropout) for _ in range(3))

    def forward(self, x: Tensor, key: Tensor, memory: Tensor, keep: Tensor, query_pos: Tensor) -> Tensor:
        """Run the layer.

        Args:
            x: (B, queries, D), the queries' states.
            key: (B, L, D), the memory with its positions.
            memory: (B, L, D).
            keep: (B, 1, 1, L), True where real.
            query_pos: (B, queries, D).

        Returns:
            (B, queries, D).
        """
        if self.pre_norm:
            x = x + self.among_queries(self.norm1(x), query_pos)
            x = x + self.to_memory(self.norm2(x), key, memory, keep, query_pos)
            return x + self.feed_forward(self.norm3(x))
        x = self.norm1(x + self.among_queries(x, query_pos))
        x = self.norm2(x + self.to_memory(x, key, memory, keep, query_pos))
        return self.norm3(x + self.feed_forward(x))

    def among_queries(self, x: Tensor, query_pos: Tensor) -> Tensor:
        """Let the queries attend to one another; shapes as in ``forward``."""
        placed = x + query_pos
        return self.dropout1(self.self_attn(placed, placed, x))

    def to_memory(self, x: Tensor, key: Tensor, memory: Tensor, keep: Tensor, query_pos: Tensor) -> Tensor:
        """Let the queries attend to the memory; shapes as in ``forward``."""
        return self.dropout2(self.multihead_attn(x + query_pos, key, memory, keep))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Run the feed-forward part: (B, queries, D) -> (B, queries, D)."""
        return self.dropout3(self.linear2(self.dropout(self.linear1(x).relu())))
