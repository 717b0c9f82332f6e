"""TR-DETR (Sun et al., AAAI 2024), as its authors published it, and faster."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.audio import with_audio
from hero_plugin.adapters.detr.base import DETR, Outputs, check_inputs
from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.layers import inverse_sigmoid
from hero_plugin.adapters.emb.fuser import VSLFuser
from hero_plugin.adapters.tr_detr.moments import best_moment, slice_clips
from hero_plugin.adapters.tr_detr.transformer import Transformer, saliency_scores


class TRDETR(DETR):
    """Retrieves the moments of a video that a query describes, and scores every clip, each task helping the other.

    Parameters have the names and shapes of the authors' code, so their checkpoints load with ``strict=True``. As there,
    outputs depend slightly on the other samples of a batch: see ``text_to_video_mask``.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__(config, query_dim=2)
        dim = config.hidden_dim
        self.clip_len = config.clip_length
        self.transformer = Transformer(config)
        self.saliency_proj1 = nn.Linear(dim, dim)
        self.fuser = VSLFuser(dim, config.vsl_dropout)
        self.gru_extractor = GRUFeatureExtractor(dim)

    def forward(
        self,
        src_txt: Tensor,
        src_txt_mask: Tensor,
        src_vid: Tensor,
        src_vid_mask: Tensor,
        src_aud: Tensor | None = None,
        src_aud_mask: Tensor | None = None,
    ) -> Outputs:
        """Ground each query in its video.

        Args:
            src_txt: (B, L, text_dim), word features.
            src_txt_mask: (B, L), 1 where real.
            src_vid: (B, T, Dv), clip features.
            src_vid_mask: (B, T), 1 where real.
            src_aud: (B, T, Da) or None, with Dv + Da = video_dim.
            src_aud_mask: ignored, as upstream.

        Returns:
            ``DETR.predictions``, saliency_scores (B, T), video_mask, which is src_vid_mask, and for the losses that
            align the two modalities the projected features src_vid_ed (B, T, D) and src_txt_ed (B, L, D) and their
            means over all positions, src_vid_cls_ed and src_txt_cls_ed (B, D).

        Raises:
            ValueError: shapes that do not fit.
        """
        check_inputs(src_txt, src_txt_mask, src_vid, src_vid_mask)
        video, text = self.input_vid_proj(with_audio(src_vid, src_aud)), self.input_txt_proj(src_txt)
        clips = video.shape[1]
        fused = self.fuser(video, text, src_vid_mask, src_txt_mask)
        mask = torch.cat([src_vid_mask, src_txt_mask], dim=1).bool()
        states, references, memory, _ = self.transformer(
            torch.cat([fused, text], dim=1),
            ~mask,
            self.query_embed.weight,
            self.positions(fused, src_vid_mask, text),
            self.saliency_proj1,
            video_length=clips,
        )
        # Words, that upstream looks for behind the clips, are not in the memory: there are none to align.
        outputs = self.predictions(states, memory, memory[:, clips:], inverse_sigmoid(references))
        return outputs | {
            "saliency_scores": self.refined_saliency(outputs, memory, video),
            "video_mask": src_vid_mask,
            "src_txt_ed": text,
            "src_vid_ed": video,
            "src_vid_cls_ed": video.mean(1),
            "src_txt_cls_ed": text.mean(1),
        }

    def refined_saliency(self, outputs: Outputs, memory: Tensor, video: Tensor) -> Tensor:
        """Score clips by their likeness to the best retrieved moment: memory and video (B, T, D) -> (B, T)."""
        moment = best_moment(outputs["pred_logits"], outputs["pred_spans"], video.shape[1], self.clip_len)
        whole = self.gru_extractor(slice_clips(video, *moment))
        likeness = video @ whole.unsqueeze(-1).to(video.dtype)
        return saliency_scores(self.saliency_proj1, memory * likeness + memory)


class GRUFeatureExtractor(nn.Module):
    """GRU whose last state stands for a sequence."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Read a sequence: (B, T, D) -> (B, D); padding is read like clips."""
        # On CPU, autocast does not cast a recurrence as a whole: it stays in its weights' precision.
        with torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else nullcontext():
            return self.gru(x.to(self.gru.weight_ih_l0.dtype))[1][-1]
