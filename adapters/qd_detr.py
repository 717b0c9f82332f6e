"""QD-DETR: adapter, and reference implementation that loads upstream checkpoints."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.adapter import FirstPassAdapter
from hero_plugin.adapters.detr.config import DETRConfig, QDDETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from hero_plugin.adapters.detr.model import DETR, Outputs, inverse_sigmoid
from hero_plugin.adapters.detr.transformer import TextToVideoTransformer, attendable


class QDDETRAdapter(FirstPassAdapter):
    """Adapter of QD-DETR (CVPR 2023), which pairs every video with the next sample's words as well.

    With levels folded level-major, that next sample is the same as in the base at every level; only the last sample of
    a level meets the first one's words as the next level has them. ``relate`` encodes the positive pairs alone and
    skips the decoder; in a compiled model it encodes both.
    """

    class_names = ("QDDETR",)
    weight_prefixes = ("input_vid_proj.", "transformer.t2v_encoder.", "global_rep_token", "saliency_proj2.")
    skips_decoder = True
    recommended: ClassVar[Mapping[str, Any]] = {"sgvf": False, "cmtr": False}  # docs/results/components.md


class Transformer(TextToVideoTransformer):
    """QD-DETR's transformer, called as upstream's: clips read the words, then one another and a global token."""

    def forward(
        self, src: Tensor, mask: Tensor, query_embed: Tensor | None, pos_embed: Tensor, video_length: int
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        """Encode and decode.

        src, the global token, the clips, the words, and pos_embed (B, 1 + T + L, D); mask True at padding; query_embed
        (queries, 2), logits of moments, or None to encode alone.

        Returns:
            Decoder states (layers, B, queries, D), their moments (layers, B, queries, 2), and the memory of the clips
            (B, T, D), which have read the words, and of the global token (B, D).
        """
        video = self.t2v_encoder(src[:, 1:], mask[:, 1:], pos_embed[:, 1:], video_length)
        mask, pos_embed = mask[:, : video_length + 1], pos_embed[:, : video_length + 1]
        memory = self.encoder(torch.cat([src[:, :1], video], dim=1), attendable(mask)[:, None, None], pos_embed)
        memory, memory_global = memory[:, 1:], memory[:, 0]
        if query_embed is None:
            return None, None, memory, memory_global
        states, references = self.decoder(memory, mask[:, 1:], pos_embed[:, 1:], query_embed)
        return states, references, memory, memory_global


class QDDETR(DETR):
    """QD-DETR (Moon et al., CVPR 2023): retrieves moments, and scores every clip, for another query, too.

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

        Arguments as in ``DETR`` -> its ``predictions``, saliency_scores and saliency_scores_neg (B, T), and video_mask,
        which is src_vid_mask.
        """
        video, text = self.project(src_txt, src_txt_mask, src_vid, src_vid_mask, src_aud)
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
        _, _, negative, negative_global = self.transformer(src, padding, None, positions, video_length=clips)
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


def build_qd_detr(config: DETRConfig, use_matcher: bool = True) -> tuple[QDDETR, SetCriterion]:
    """Build model and criterion as upstream's ``build_model`` does, on the CPU; used as ``build_moment_detr``'s.

    ``use_matcher=False`` trains highlights alone, as upstream does for TVSum.
    """
    return QDDETR(config), SetCriterion(config, ranks=True, negative_pairs=True, use_matcher=use_matcher)


__all__ = ["QDDETR", "QDDETRConfig", "build_qd_detr"]
