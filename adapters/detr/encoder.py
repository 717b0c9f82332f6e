"""Encoders: clips (and words) attend to one another, or clips to words."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.attention import MultiheadAttention, attendable
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.dropout import Dropout

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
        """Let clips attend to words.

        Args:
            video: (B, T, D).
            text: (B, L, D).
            keep: (B, heads, T, L), True where a clip may attend to a word.
            position: (B, T, D), of the clips.
            text_position: (B, L, D).

        Returns:
            (B, T, D).
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
        """Return the clips after they have read the query.

        Args:
            src: (B, clips + L, D), the clips before the words.
            padding: (B, clips + L), True at padding.
            position: (B, clips + L, D).
            clips: T, how many clips come first.

        Returns:
            (B, clips, D).
        """
        lengths = (clips, src.shape[1] - clips)
        video, text = src.split(lengths, dim=1)
        position, text_position = position.split(lengths, dim=1)
        keep = text_to_video_mask(*padding.split(lengths, dim=1), self.num_heads)
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
