"""Moment-DETR as a grounder."""

from __future__ import annotations

from hero_plugin.adapters.detr.adapter import DETRAdapter


class MomentDETRAdapter(DETRAdapter):
    """Moment-DETR (NeurIPS 2021), whose saliency scores are read from the encoder: ``relate`` skips the decoder."""

    class_names = ("MomentDETR",)
    marks = ("input_vid_proj.", "query_embed.", "saliency_proj.")
    skips_decoder = True
