"""QD-DETR's transformer: clips read the words first, then one another and a token that stands for the whole."""

from __future__ import annotations

import torch
from torch import Tensor

from hero_plugin.adapters.detr.attention import attendable
from hero_plugin.adapters.detr.decoder import decode
from hero_plugin.adapters.detr.transformer import TextToVideoTransformer


class Transformer(TextToVideoTransformer):
    """QD-DETR's transformer: two encoders and a decoder, called as upstream's."""

    def forward(
        self, src: Tensor, mask: Tensor, query_embed: Tensor, pos_embed: Tensor, video_length: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode and decode.

        Args:
            src: as in ``encode``.
            mask: as in ``encode``.
            query_embed: (queries, 2), logits of moments.
            pos_embed: as in ``encode``.
            video_length: T.

        Returns:
            Decoder states (layers, B, queries, D), their moments (layers, B, queries, 2), and ``encode``'s two.
        """
        memory, memory_global = self.encode(src, mask, pos_embed, video_length)
        clips = slice(1, video_length + 1)
        states, references = decode(self.decoder, memory, mask[:, clips], pos_embed[:, clips], query_embed)
        return states, references, memory, memory_global

    def encode(self, src: Tensor, mask: Tensor, pos_embed: Tensor, video_length: int) -> tuple[Tensor, Tensor]:
        """Encode clips that have read the words.

        Args:
            src: (B, 1 + T + L, D), the global token, the clips, the words.
            mask: (B, 1 + T + L), True at padding.
            pos_embed: (B, 1 + T + L, D).
            video_length: T.

        Returns:
            Memory of the clips (B, T, D) and of the global token (B, D).
        """
        video = self.t2v_encoder(src[:, 1:], mask[:, 1:], pos_embed[:, 1:], video_length)
        keep = attendable(mask[:, : video_length + 1])[:, None, None]
        memory = self.encoder(torch.cat([src[:, :1], video], dim=1), keep, pos_embed[:, : video_length + 1])
        return memory[:, 1:], memory[:, 0]
