"""Moment-DETR (Lei et al., NeurIPS 2021), as its authors published it, and faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.base import DETR, Outputs, check_inputs
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.moment_detr.transformer import Transformer


class MomentDETR(DETR):
    """Retrieves the moments of a video that a query describes, and scores every clip.

    Parameters have the names and shapes of the authors' code, so their checkpoints load with ``strict=True``.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__(config, query_dim=config.hidden_dim)
        self.transformer = Transformer(config)
        self.saliency_proj = nn.Linear(config.hidden_dim, 1)

    def forward(self, src_txt: Tensor, src_txt_mask: Tensor, src_vid: Tensor, src_vid_mask: Tensor) -> Outputs:
        """Ground each query in its video.

        Args:
            src_txt: (B, L, text_dim), word features.
            src_txt_mask: (B, L), 1 where real.
            src_vid: (B, T, video_dim), clip features.
            src_vid_mask: (B, T), 1 where real.

        Returns:
            ``DETR.predictions``, and saliency_scores (B, T).

        Raises:
            ValueError: shapes that do not fit.
        """
        check_inputs(src_txt, src_txt_mask, src_vid, src_vid_mask)
        video, text = self.input_vid_proj(src_vid), self.input_txt_proj(src_txt)
        mask = torch.cat([src_vid_mask, src_txt_mask], dim=1).bool()
        states, memory = self.transformer(
            torch.cat([video, text], dim=1),
            ~mask,
            self.query_embed.weight,
            self.positions(video, src_vid_mask, text),
        )
        video_memory, text_memory = memory.split((video.shape[1], text.shape[1]), dim=1)
        outputs = self.predictions(states, video_memory, text_memory)
        return outputs | {"saliency_scores": self.saliency_proj(video_memory).squeeze(-1)}
