"""Decoder of QD-DETR and TR-DETR, whose queries are reference moments, corrected layer by layer.

As in DAB-DETR (Liu et al., 2022), with one dimension in place of two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.attention import ProjectedAttention, attendable, split_heads
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.layers import MLP, inverse_sigmoid
from hero_plugin.adapters.detr.positions import span_sines
from hero_plugin.adapters.detr.prelu import PReLU
from hero_plugin.adapters.dropout import Dropout


class SpanDecoder(nn.Module):
    """``dec_layers`` layers; called as upstream's, with the sequence before the batch."""

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.layers = nn.ModuleList(SpanDecoderLayer(config, is_first=i == 0) for i in range(config.dec_layers))
        self.norm = nn.LayerNorm(dim)
        self.query_scale = MLP(dim, dim, dim, 2)
        self.ref_point_head = MLP(dim, dim, dim, 2)
        self.ref_anchor_head = MLP(dim, dim, 1, 2)
        self.bbox_embed = MLP(dim, dim, 2, 3)
        nn.init.zeros_(self.bbox_embed.layers[-1].bias)

    def forward(
        self, tgt: Tensor, memory: Tensor, *, memory_key_padding_mask: Tensor, pos: Tensor, refpoints_unsigmoid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode moments.

        Args:
            tgt: (queries, B, D), initial states.
            memory: (T, B, D).
            memory_key_padding_mask: (B, T), True at padding.
            pos: (T, B, D), positions of the clips.
            refpoints_unsigmoid: (queries, B, 2), logits of the reference moments.

        Returns:
            Normalised states of every layer, (layers, B, queries, D), and the moments that each layer started from,
            (layers, B, queries, 2) of (center, width) in [0, 1].
        """
        keep = attendable(memory_key_padding_mask)[:, None, None]
        x, memory, pos = (part.transpose(0, 1) for part in (tgt, memory, pos))
        moments = refpoints_unsigmoid.transpose(0, 1).sigmoid()
        states, references = [], [moments]
        for i, layer in enumerate(self.layers):
            sine = span_sines(moments, x.shape[-1]).to(self.norm.weight.dtype)
            query_pos = self.ref_point_head(sine)
            if i > 0:
                sine = sine * self.query_scale(x)
            # Wide moments look at clips far from their center.
            sine = sine * (self.ref_anchor_head(x).sigmoid() / moments[..., 1:])
            x = layer(x, memory, keep, pos, query_pos, sine)
            states.append(self.norm(x))
            if i + 1 < len(self.layers):
                corrected = (self.bbox_embed(x) + inverse_sigmoid(moments)).sigmoid()
                references.append(corrected)
                moments = corrected.detach()
        return torch.stack(states), torch.stack(references)


class SpanDecoderLayer(nn.Module):
    """Layer in which queries attend to one another, then to the clips, by content and by place separately.

    In the first layer the place is added to the content, too.
    """

    def __init__(self, config: DETRConfig, is_first: bool) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.num_heads = config.nheads
        self.sa_qcontent_proj = nn.Linear(dim, dim)
        self.sa_qpos_proj = nn.Linear(dim, dim)
        self.sa_kcontent_proj = nn.Linear(dim, dim)
        self.sa_kpos_proj = nn.Linear(dim, dim)
        self.sa_v_proj = nn.Linear(dim, dim)
        self.self_attn = ProjectedAttention(dim, config.nheads, config.dropout)

        self.ca_qcontent_proj = nn.Linear(dim, dim)
        self.ca_qpos_proj = nn.Linear(dim, dim) if is_first else None
        self.ca_kcontent_proj = nn.Linear(dim, dim)
        self.ca_kpos_proj = nn.Linear(dim, dim)
        self.ca_v_proj = nn.Linear(dim, dim)
        self.ca_qpos_sine_proj = nn.Linear(dim, dim)
        self.cross_attn = ProjectedAttention(dim, config.nheads, config.dropout)

        self.linear1 = nn.Linear(dim, config.dim_feedforward)
        self.activation = PReLU()
        self.dropout = Dropout(config.dropout)
        self.linear2 = nn.Linear(config.dim_feedforward, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout1, self.dropout2, self.dropout3 = (Dropout(config.dropout) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor, pos: Tensor, query_pos: Tensor, sine: Tensor) -> Tensor:
        """Run the layer.

        Args:
            x: (B, queries, D), the queries' states.
            memory: (B, T, D), the clips.
            keep: (B, 1, 1, T), True where real.
            pos: (B, T, D), positions of the clips.
            query_pos: (B, queries, D), positions of the queries.
            sine: (B, queries, D), the encoded reference moments, scaled.

        Returns:
            (B, queries, D).
        """
        x = self.norm1(x + self.dropout1(self.among_queries(x, query_pos)))
        x = self.norm2(x + self.dropout2(self.to_memory(x, memory, keep, pos, query_pos, sine)))
        return self.norm3(x + self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x))))))

    def among_queries(self, x: Tensor, query_pos: Tensor) -> Tensor:
        """Let the queries attend to one another; shapes as in ``forward``."""
        query = self.sa_qcontent_proj(x) + self.sa_qpos_proj(query_pos)
        key = self.sa_kcontent_proj(x) + self.sa_kpos_proj(query_pos)
        return self.self_attn(*(split_heads(part, self.num_heads) for part in (query, key, self.sa_v_proj(x))))

    def to_memory(
        self, x: Tensor, memory: Tensor, keep: Tensor, pos: Tensor, query_pos: Tensor, sine: Tensor
    ) -> Tensor:
        """Let the queries attend to the clips; shapes as in ``forward``."""
        query, key, place = self.ca_qcontent_proj(x), self.ca_kcontent_proj(memory), self.ca_kpos_proj(pos)
        if self.ca_qpos_proj is not None:
            query, key = query + self.ca_qpos_proj(query_pos), key + place
        parts = (query, self.ca_qpos_sine_proj(sine), key, place, self.ca_v_proj(memory))
        query, sine, key, place, value = (split_heads(part, self.num_heads) for part in parts)
        return self.cross_attn(torch.cat([query, sine], dim=-1), torch.cat([key, place], dim=-1), value, keep)


def decode(decoder: nn.Module, memory: Tensor, mask: Tensor, pos: Tensor, query_embed: Tensor) -> tuple[Tensor, Tensor]:
    """Run the decoder on a batch-first memory, with queries that start from zeros.

    Args:
        decoder: a ``SpanDecoder``, or upstream's.
        memory: (B, T, D).
        mask: (B, T), True at padding.
        pos: (B, T, D).
        query_embed: (queries, 2), logits of the reference moments.

    Returns:
        States and reference moments as ``SpanDecoder.forward`` returns them.
    """
    batch, _, dim = memory.shape
    states, references = decoder(
        query_embed.new_zeros(query_embed.shape[0], batch, dim),
        memory.transpose(0, 1),
        memory_key_padding_mask=mask,
        pos=pos.transpose(0, 1),
        refpoints_unsigmoid=query_embed.unsqueeze(1).expand(-1, batch, -1),
    )
    return states, references
