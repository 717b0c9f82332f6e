"""QD-DETR (Moon et al., CVPR 2023), as its authors published it, and faster."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.audio import with_audio
from hero_plugin.adapters.detr.base import DETR, Outputs, check_inputs
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.layers import inverse_sigmoid
from hero_plugin.adapters.qd_detr.transformer import Transformer


class QDDETR(DETR):
    """Retrieves the moments of a video that a query describes, and scores every clip, for another query, too.

    Parameters have the names and shapes of the authors' code, so their checkpoints load with ``strict=True``. As there,
    outputs depend slightly on the other samples of a batch: see ``text_to_video_mask``.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__(config, query_dim=2)
        dim = config.hidden_dim
        self.transformer = Transformer(config)
        self.saliency_proj1 = nn.Linear(dim, dim)
        self.saliency_proj2 = nn.Linear(dim, dim)
        self.global_rep_token = nn.Parameter(torch.randn(dim))
        self.global_rep_pos = nn.Parameter(torch.randn(dim))

    def forward(
        self,
        src_txt: Tensor,
        src_txt_mask: Tensor,
        src_vid: Tensor,
        src_vid_mask: Tensor,
        src_aud: Tensor | None = None,
        src_aud_mask: Tensor | None = None,
    ) -> Outputs:
        """Ground each query in its video, and score the clips against the next sample's query.

        Args:
            src_txt: (B, L, text_dim), word features.
            src_txt_mask: (B, L), 1 where real.
            src_vid: (B, T, Dv), clip features.
            src_vid_mask: (B, T), 1 where real.
            src_aud: (B, T, Da) or None, with Dv + Da = video_dim.
            src_aud_mask: ignored, as upstream.

        Returns:
            ``DETR.predictions``, saliency_scores and saliency_scores_neg (B, T), and video_mask, which is src_vid_mask.

        Raises:
            ValueError: shapes that do not fit.
        """
        check_inputs(src_txt, src_txt_mask, src_vid, src_vid_mask)
        video, text = self.input_vid_proj(with_audio(src_vid, src_aud)), self.input_txt_proj(src_txt)
        clips = video.shape[1]
        positions = self.positions(video, src_vid_mask, text)
        positions = torch.cat([self.global_rep_pos.expand(len(video), 1, -1), positions], dim=1)

        src, padding = self.sequence(video, src_vid_mask, text, src_txt_mask)
        states, references, memory, memory_global = self.transformer(
            src, padding, self.query_embed.weight, positions, video_length=clips
        )
        # Words, that upstream looks for behind the clips, are not in the memory: there are none to align.
        outputs = self.predictions(states, memory, memory[:, clips:], inverse_sigmoid(references))

        # Negative pairs: every video with the next sample's query. Rolling the batch by one gives each sample another's
        # query where there are two. With HERO's levels folded level-major, the next row is the next sample of the same
        # level; batch-major, it would be the sample itself at another level. The positions stay the positive query's,
        # as upstream. The encoders are enough: nobody reads what the decoder would say.
        src, padding = self.sequence(video, src_vid_mask, text.roll(-1, 0), src_txt_mask.roll(-1, 0))
        negative, negative_global = self.transformer.encode(src, padding, positions, clips)
        return outputs | {
            "saliency_scores": self.saliency(memory, memory_global),
            "saliency_scores_neg": self.saliency(negative, negative_global),
            "video_mask": src_vid_mask,
        }

    def sequence(self, video: Tensor, video_mask: Tensor, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Join global token, clips and words: (B, 1 + T + L, D), and True at padding, (B, 1 + T + L)."""
        src = torch.cat([self.global_rep_token.expand(len(video), 1, -1), video, text], dim=1)
        real = torch.cat([video_mask.new_ones(len(video), 1), video_mask, text_mask], dim=1)
        return src, ~real.bool()

    def saliency(self, memory: Tensor, memory_global: Tensor) -> Tensor:
        """Score how alike each clip (B, T, D) and the whole (B, D) are after a projection each: (B, T)."""
        whole = self.saliency_proj2(memory_global)
        # <W·clip + b, whole> as <clip, Wᵀ·whole> + <b, whole>: one projection per video, none per clip.
        scores = memory @ (whole @ self.saliency_proj1.weight).unsqueeze(-1)
        return (scores.squeeze(-1) + whole @ self.saliency_proj1.bias.unsqueeze(-1)) / math.sqrt(whole.shape[-1])
