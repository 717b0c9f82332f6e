"""Moment-DETR: adapter, and reference implementation that loads upstream checkpoints."""

import torch
from torch import Tensor, nn

from hero_plugin.adapters.cpu_ops import Dropout
from hero_plugin.adapters.detr.adapter import DETRAdapter
from hero_plugin.adapters.detr.config import DETRConfig, MomentDETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from hero_plugin.adapters.detr.model import DETR, Outputs, xavier_
from hero_plugin.adapters.detr.transformer import Encoder, MultiheadAttention, attendable


class MomentDETRAdapter(DETRAdapter):
    """Adapter of Moment-DETR (NeurIPS 2021).

    Its saliency scores are read from the encoder: ``relate`` skips the decoder.
    """

    class_names = ("MomentDETR",)
    weight_prefixes = ("input_vid_proj.", "query_embed.", "saliency_proj.")
    skips_decoder = True


class Transformer(nn.Module):
    """Moment-DETR's transformer, called as upstream's: clips and words in one sequence, and queries that read it."""

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.d_model, self.nhead = config.hidden_dim, config.nheads
        self.encoder = Encoder(config, nn.ReLU)
        self.decoder = Decoder(config)
        xavier_(self)

    def forward(self, src: Tensor, mask: Tensor, query_embed: Tensor, pos_embed: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode the clips and words.

        src and pos_embed (B, L, D), mask (B, L), True at padding, query_embed (queries, D) -> decoder states
        (layers, B, queries, D) and memory (B, L, D).
        """
        keep = attendable(mask)[:, None, None]
        memory = self.encoder(src, keep, pos_embed)
        query_pos = query_embed.expand(len(src), -1, -1)
        return self.decoder(torch.zeros_like(query_pos), memory, keep, pos_embed, query_pos), memory


class Decoder(nn.Module):
    """``dec_layers`` layers in which queries read the memory."""

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.dec_layers))
        self.norm = nn.LayerNorm(config.hidden_dim)

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor, pos: Tensor, query_pos: Tensor) -> Tensor:
        """Return the normalised states of every layer, (layers, B, queries, D).

        x, initial states, and query_pos (B, queries, D); memory and its pos (B, L, D); keep (B, 1, 1, L), True where
        real.
        """
        # A view, so that the gradients of all layers add up before those of the memory's other readers.
        memory = memory.view_as(memory)
        key = memory + pos
        states = []
        for layer in self.layers:
            x = layer(x, key, memory, keep, query_pos)
            states.append(self.norm(x))
        return torch.stack(states)


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
        """Run the layer: states x and query_pos (B, queries, D) -> (B, queries, D).

        key, the memory with its positions, and memory (B, L, D); keep (B, 1, 1, L), True where real.
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


class MomentDETR(DETR):
    """Moment-DETR (Lei et al., NeurIPS 2021): retrieves the moments that a query describes, and scores every clip.

    Parameters have the names and shapes of the authors' code, so their checkpoints load with ``strict=True``.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__(config, query_dim=config.hidden_dim)
        self.transformer = Transformer(config)
        self.saliency_proj = nn.Linear(config.hidden_dim, 1)

    def forward(self, src_txt: Tensor, src_txt_mask: Tensor, src_vid: Tensor, src_vid_mask: Tensor) -> Outputs:
        """Ground each query: arguments as in ``DETR`` -> its ``predictions``, and saliency_scores (B, T)."""
        video, text = self.project(src_txt, src_txt_mask, src_vid, src_vid_mask)
        mask = torch.cat([src_vid_mask, src_txt_mask], dim=1).bool()
        states, memory = self.transformer(
            torch.cat([video, text], dim=1), ~mask, self.query_embed.weight, self.positions(video, src_vid_mask, text)
        )
        video_memory, text_memory = memory.split((video.shape[1], text.shape[1]), dim=1)
        outputs = self.predictions(states, video_memory, text_memory)
        return outputs | {"saliency_scores": self.saliency_proj(video_memory).squeeze(-1)}


def build_moment_detr(config: DETRConfig) -> tuple[MomentDETR, SetCriterion]:
    """Build model and criterion as upstream's ``build_model`` does, on the CPU.

    >>> model, criterion = build_moment_detr(MomentDETRConfig(text_dim=512, video_dim=2818))
    >>> losses = criterion(model(**model_inputs), targets)
    >>> loss = sum(losses[k] * criterion.weight_dict[k] for k in losses if k in criterion.weight_dict)
    """
    return MomentDETR(config), SetCriterion(config)


__all__ = ["MomentDETR", "MomentDETRConfig", "build_moment_detr"]
