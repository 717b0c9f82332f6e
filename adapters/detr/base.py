"""The common part of the DETR family's models: input projections and prediction heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.layers import MLP, InputProjection
from hero_plugin.adapters.detr.positions import PositionEmbeddingSine, TrainablePositionalEncoding

Outputs = dict[str, Any]


class DETR(nn.Module):
    """Base class: projects clips and words to one width, and reads predictions from a decoder's states.

    A model of the family adds its own parts and ``forward``, and sets ``transformer``.

    Args:
        config: sizes and losses.
        query_dim: numbers per learned query: the width, or 2 where it is a reference moment.
    """

    def __init__(self, config: DETRConfig, query_dim: int) -> None:
        super().__init__()
        self.config = config
        self.num_queries, self.max_v_l = config.num_queries, config.max_v_l
        self.span_loss_type, self.aux_loss = config.span_loss_type, config.aux_loss
        self.use_txt_pos, self.contrastive_align_loss = config.use_txt_pos, config.contrastive_align_loss
        dim = config.hidden_dim
        self.position_embed = PositionEmbeddingSine(dim)
        self.txt_position_embed = TrainablePositionalEncoding(config.max_q_l, dim, config.input_dropout)
        self.input_txt_proj = InputProjection(config.text_dim, dim, config.n_input_proj, config.input_dropout)
        self.input_vid_proj = InputProjection(config.video_dim, dim, config.n_input_proj, config.input_dropout)
        self.query_embed = nn.Embedding(config.num_queries, query_dim)
        self.span_embed = MLP(dim, dim, 2 if config.span_loss_type == "l1" else 2 * config.max_v_l, 3)
        self.class_embed = nn.Linear(dim, 2)  # foreground, background
        if config.contrastive_align_loss:
            self.contrastive_align_projection_query = nn.Linear(dim, config.contrastive_hdim)
            self.contrastive_align_projection_txt = nn.Linear(dim, config.contrastive_hdim)
            self.contrastive_align_projection_vid = nn.Linear(dim, config.contrastive_hdim)

    def positions(self, video: Tensor, video_mask: Tensor, text: Tensor) -> Tensor:
        """Return the positions of clips and words in one sequence; words have zeros unless ``use_txt_pos``.

        Args:
            video: (B, T, D).
            video_mask: (B, T), 1 where real.
            text: (B, L, D).

        Returns:
            (B, T + L, D).
        """
        of_words = self.txt_position_embed(text) if self.use_txt_pos else torch.zeros_like(text)
        # Not the clips' type: under autocast they may be half precision already.
        of_clips = self.position_embed(video, video_mask).to(self.query_embed.weight.dtype)
        return torch.cat([of_clips, of_words], dim=1)

    def predictions(self, states: Tensor, video: Tensor, text: Tensor, references: Tensor | None = None) -> Outputs:
        """Read the outputs from the decoder's states.

        Args:
            states: (layers, B, queries, D).
            video: (B, T, D), the encoder's memory of the clips.
            text: (B, words, D), the encoder's memory of the words.
            references: (layers, B, queries, 2), logits of the moments that the spans correct; None for no correction.

        Returns:
            pred_logits (B, queries, 2); pred_spans (B, queries, 2) of (center, width), in [0, 1], or logits
            (B, queries, 2·max_v_l) where span_loss_type is "ce"; with ``contrastive_align_loss`` proj_queries,
            proj_txt_mem and proj_vid_mem, of unit length; with ``aux_loss`` aux_outputs, these for each earlier layer.
        """
        logits, spans = self.class_embed(states), self.span_embed(states)
        if references is not None:
            spans = spans + references
        if self.span_loss_type == "l1":
            spans = spans.sigmoid()
        by_layer = [{"pred_logits": a, "pred_spans": b} for a, b in zip(logits, spans, strict=True)]
        outputs: Outputs = by_layer.pop()
        if self.contrastive_align_loss:
            queries = F.normalize(self.contrastive_align_projection_query(states), dim=-1)
            words = F.normalize(self.contrastive_align_projection_txt(text), dim=-1)
            clips = F.normalize(self.contrastive_align_projection_vid(video), dim=-1)
            outputs |= {"proj_queries": queries[-1], "proj_txt_mem": words, "proj_vid_mem": clips}
            for of_layer, layer_queries in zip(by_layer, queries[:-1], strict=True):
                of_layer |= {"proj_queries": layer_queries, "proj_txt_mem": words}
        if self.aux_loss:
            outputs["aux_outputs"] = by_layer
        return outputs


def check_inputs(text: Tensor, text_mask: Tensor, video: Tensor, video_mask: Tensor) -> None:
    """Raise ValueError unless (B, L, ·), (B, L), (B, T, ·) and (B, T), none of them empty, fit together."""
    for name, features, mask in (("src_txt", text, text_mask), ("src_vid", video, video_mask)):
        if features.dim() != 3 or 0 in features.shape:
            raise ValueError(f"{name} must be (batch, length, width), none of them 0, got {tuple(features.shape)}")
        if mask.shape != features.shape[:2]:
            wanted = tuple(features.shape[:2])
            raise ValueError(
                f"{name}_mask must be {wanted}, one number per position of {name}, got {tuple(mask.shape)}"
            )
    if text.shape[0] != video.shape[0]:
        raise ValueError(f"src_txt and src_vid must share the batch size, got {text.shape[0]} and {video.shape[0]}")
