"""TR-DETR's transformer: clips read the words, then one another, twice, the second time the salient ones louder."""

from __future__ import annotations

import math

from torch import Tensor, nn

from hero_plugin.adapters.detr.attention import attendable
from hero_plugin.adapters.detr.decoder import decode
from hero_plugin.adapters.detr.layers import summed_projection
from hero_plugin.adapters.detr.transformer import TextToVideoTransformer


class Transformer(TextToVideoTransformer):
    """TR-DETR's transformer: two encoders and a decoder, called as upstream's."""

    def forward(
        self,
        src: Tensor,
        mask: Tensor,
        query_embed: Tensor,
        pos_embed: Tensor,
        saliency_proj1: nn.Linear,
        video_length: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode twice and decode.

        Args:
            src: (B, T + L, D), the clips, then the words.
            mask: (B, T + L), True at padding.
            query_embed: (queries, 2), logits of moments.
            pos_embed: (B, T + L, D).
            saliency_proj1: the model's.
            video_length: T.

        Returns:
            Decoder states (layers, B, queries, D), their moments (layers, B, queries, 2), the memory of the clips
            (B, T, D), and their saliency before it was used (B, T).
        """
        video = self.t2v_encoder(src, mask, pos_embed, video_length)
        mask, pos_embed = mask[:, :video_length], pos_embed[:, :video_length]
        keep = attendable(mask)[:, None, None]
        memory = self.encoder(video, keep, pos_embed)
        saliency = saliency_scores(saliency_proj1, memory)
        # Over padding too, as upstream.
        weighted = video * saliency.softmax(-1).unsqueeze(-1)
        memory = self.encoder(memory + weighted, keep, pos_embed)
        states, references = decode(self.decoder, memory, mask, pos_embed, query_embed)
        return states, references, memory, saliency


def saliency_scores(projection: nn.Linear, memory: Tensor) -> Tensor:
    """Score clips by the sum of the projection's outputs, scaled: (B, T, D) -> (B, T)."""
    return summed_projection(projection, memory) / math.sqrt(memory.shape[-1])
