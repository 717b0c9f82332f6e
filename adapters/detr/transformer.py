"""Transformer parts of the DETR family: attention, encoders, and the decoder of QD-DETR and TR-DETR."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.cpu_ops import LOWEST, Dropout, PReLU, attend_with_bias
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.model import MLP, inverse_sigmoid, span_sines, xavier_


class ProjectedAttention(nn.Module):
    """Attention over projected inputs; queries and keys may be wider than values."""

    def __init__(self, value_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.out_proj = nn.Linear(value_dim, value_dim)
        nn.init.zeros_(self.out_proj.bias)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None = None) -> Tensor:
        """Attend as ``attend_with_mask`` and project the joined heads -> (B, T, value_dim)."""
        return self.out_proj(attend_with_mask(query, key, value, keep, self.dropout))


class MultiheadAttention(ProjectedAttention):
    """``nn.MultiheadAttention``, batch first, with the same parameter names; faster, as it returns no weights."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__(dim, num_heads, dropout)
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * dim, dim)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None = None) -> Tensor:
        """Attend: query (B, T, D), key and value (B, S, D), keep as in ``attend_with_mask`` -> (B, T, D).

        Where ``key`` is the same object as ``query``, one matrix product projects both.
        """
        dim = self.out_proj.in_features
        if query is key:
            weights, biases = self.in_proj_weight.split((2 * dim, dim)), self.in_proj_bias.split((2 * dim, dim))
            q, k = F.linear(query, weights[0], biases[0]).chunk(2, dim=-1)
            v = F.linear(value, weights[1], biases[1])
        else:
            parts = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
            q, k, v = (F.linear(*part) for part in parts)
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))
        return super().forward(q, k, v, keep)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Split the last axis into heads: (B, L, heads·d) -> (B, heads, L, d)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def attendable(padding: Tensor) -> Tensor:
    """Return where keys may be attended to: ``padding`` (..., S), True at padding -> (..., S), True where open.

    Where all keys are padding, all are open: the average, finite with finite gradients, in place of NaN.
    """
    return ~padding | padding.all(-1, keepdim=True)


def attend_with_mask(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, dropout: nn.Dropout) -> Tensor:
    """Attend where ``keep`` allows it, and join the heads.

    query (B, heads, T, e), key (B, heads, S, e), value (B, heads, S, d) -> (B, T, heads·d). ``keep`` is True where
    attention is allowed, or None; it broadcasts to (B, heads, T, S). ``dropout`` drops weights in training mode.
    """
    p = dropout.p if dropout.training else 0.0
    if p and query.device.type == "cpu":
        # In float32, whatever the query's type: half precision has no number so low.
        bias = None if keep is None else torch.zeros_like(keep, dtype=torch.float32).masked_fill_(~keep, LOWEST)
        context = attend_with_bias(query, key, value, bias, p)
    else:
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=keep, dropout_p=p)
    return context.transpose(1, 2).flatten(2)


Activation = Callable[[], nn.Module]


class AttentionBlock(nn.Module):
    """Attention and feed-forward part, shared by the two kinds of encoder layer."""

    def __init__(self, config: DETRConfig, activation: Activation) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.self_attn = MultiheadAttention(dim, config.nheads, config.dropout)
        self.linear1 = nn.Linear(dim, config.dim_feedforward)
        self.activation = activation()
        self.dropout = Dropout(config.dropout)
        self.linear2 = nn.Linear(config.dim_feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout1 = Dropout(config.dropout)
        self.dropout2 = Dropout(config.dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Run the feed-forward part: (B, L, D) -> (B, L, D)."""
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class EncoderLayer(AttentionBlock):
    """Self-attention, then the feed-forward part, each added to its input; positions join queries and keys."""

    def __init__(self, config: DETRConfig, activation: Activation) -> None:
        super().__init__(config, activation)
        self.pre_norm = config.pre_norm

    def forward(self, x: Tensor, keep: Tensor, position: Tensor) -> Tensor:
        """Run the layer: x and position (B, L, D), keep (B, 1, 1, L), True where real -> (B, L, D)."""
        if self.pre_norm:
            x = x + self.attention(self.norm1(x), keep, position)
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x, keep, position))
        return self.norm2(x + self.feed_forward(x))

    def attention(self, x: Tensor, keep: Tensor, position: Tensor) -> Tensor:
        """Attend from x to x, as in ``forward``."""
        placed = x + position
        return self.dropout1(self.self_attn(placed, placed, x, keep))


class Encoder(nn.Module):
    """``enc_layers`` layers of self-attention."""

    def __init__(self, config: DETRConfig, activation: Activation) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config, activation) for _ in range(config.enc_layers))
        self.norm = nn.LayerNorm(config.hidden_dim) if config.pre_norm else None

    def forward(self, x: Tensor, keep: Tensor, position: Tensor) -> Tensor:
        """Encode: x and position (B, L, D), keep (B, 1, 1, L), True where real -> (B, L, D)."""
        for layer in self.layers:
            x = layer(x, keep, position)
        return x if self.norm is None else self.norm(x)


class TextToVideoLayer(AttentionBlock):
    """Layer in which clips attend to words; the feed-forward part reads normalised features and adds to the others."""

    def forward(self, video: Tensor, text: Tensor, keep: Tensor, position: Tensor, text_position: Tensor) -> Tensor:
        """Let clips attend to words: video and position (B, T, D), text and text_position (B, L, D) -> (B, T, D).

        keep (B, heads, T, L) is True where a clip may attend to a word.
        """
        x = video + self.dropout1(self.self_attn(video + position, text + text_position, text, keep))
        return self.norm2(x + self.feed_forward(self.norm1(x)))


class TextToVideoEncoder(nn.Module):
    """``enc_layers`` layers in which clips attend to words; the words stay as they are."""

    def __init__(self, config: DETRConfig, activation: Activation) -> None:
        super().__init__()
        self.num_heads = config.nheads
        self.layers = nn.ModuleList(TextToVideoLayer(config, activation) for _ in range(config.enc_layers))

    def forward(self, src: Tensor, padding: Tensor, position: Tensor, clips: int) -> Tensor:
        """Return the clips after they have read the query, (B, clips, D).

        src, the clips before the words, and position (B, clips + L, D), padding (B, clips + L), True at padding.
        """
        lengths = (clips, src.shape[1] - clips)
        video, text = src.split(lengths, dim=1)
        position, text_position = position.split(lengths, dim=1)
        video_padding, text_padding = padding.split(lengths, dim=1)
        keep = text_to_video_mask(video_padding, text_padding, self.num_heads)
        for layer in self.layers:
            video = layer(video, text, keep, position, text_position)
        return video


def text_to_video_mask(video_padding: Tensor, text_padding: Tensor, num_heads: int) -> Tensor:
    """Return which words each clip may attend to, per head: (B, T) and (B, L), True at padding -> (B, heads, T, L).

    All real words of its own query; but a head of a sample leaves out, too, what is padding both as a clip and as a
    word in *another* sample. So it is upstream, where the mask of pairs is repeated head by head and read sample by
    sample (head h of sample b gets that of sample (b·heads + h) mod B). It is kept because published weights were
    trained with it: outputs depend, slightly, on the rest of the batch. A clip left with no word may attend to all.
    """
    batch = video_padding.shape[0]
    pairs = video_padding.unsqueeze(2) & text_padding.unsqueeze(1)
    sample = torch.arange(batch * num_heads, device=pairs.device).remainder(batch).view(batch, num_heads)
    shut = pairs[sample] | text_padding[:, None, None]
    return attendable(shut)


class SpanDecoder(nn.Module):
    """Decoder whose queries are reference moments, corrected by each of ``dec_layers`` layers.

    As in DAB-DETR (Liu et al., 2022), with one dimension in place of two.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.layers = nn.ModuleList(SpanDecoderLayer(config, is_first=i == 0) for i in range(config.dec_layers))
        self.norm = nn.LayerNorm(dim)
        self.query_scale = MLP(dim, dim, dim, 2)
        self.ref_point_head = MLP(dim, dim, dim, 2)
        self.ref_anchor_head = MLP(dim, dim, 1, 2)
        self.bbox_embed = MLP(dim, dim, 2, 3)
        last: Any = self.bbox_embed.layers[-1]
        nn.init.zeros_(last.bias)

    def forward(self, memory: Tensor, mask: Tensor, pos: Tensor, query_embed: Tensor) -> tuple[Tensor, Tensor]:
        """Decode moments, with queries that start from zeros.

        memory and pos (B, T, D), mask (B, T), True at padding, query_embed (queries, 2), logits of the reference
        moments.

        Returns:
            Normalised states of every layer, (layers, B, queries, D), and the moments that each layer started from,
            (layers, B, queries, 2) of (center, width) in [0, 1].
        """
        batch, _, dim = memory.shape
        keep = attendable(mask)[:, None, None]
        # A view and this layout keep the order in which gradients add up, to the bit: for the memory those of all
        # layers before those of its other readers, for the first layer's parameters query by query.
        memory = memory.view_as(memory)
        x = query_embed.new_zeros(len(query_embed), batch, dim).transpose(0, 1)
        moments = query_embed.expand(batch, -1, -1).sigmoid()
        states, references = [], [moments]
        for i, layer in enumerate(self.layers):
            sine = span_sines(moments, dim).to(self.norm.weight.dtype)
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
        """Run the layer: the queries' states x and their query_pos (B, queries, D) -> (B, queries, D).

        memory, the clips, and their pos (B, T, D); keep (B, 1, 1, T), True where real; sine (B, queries, D), the
        encoded reference moments, scaled.
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


class TextToVideoTransformer(nn.Module):
    """Base class: an encoder in which clips read words, one in which clips read clips, and a decoder of moments.

    A model's own transformer says in ``forward`` in which order they run.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.d_model, self.nhead = config.hidden_dim, config.nheads
        self.t2v_encoder = TextToVideoEncoder(config, PReLU)
        self.encoder = Encoder(config, PReLU)
        self.decoder = SpanDecoder(config)
        xavier_(self)
