"""Adapter of Moment-DETR."""

from __future__ import annotations

from hero_plugin.adapters.detr.adapter import DETRAdapter


class MomentDETRAdapter(DETRAdapter):
    """Adapter of Moment-DETR (NeurIPS 2021).

    Its saliency scores are read from the encoder: ``relate`` skips the decoder.
    """

    class_names = ("MomentDETR",)
    marks = ("input_vid_proj.", "query_embed.", "saliency_proj.")
    skips_decoder = True
