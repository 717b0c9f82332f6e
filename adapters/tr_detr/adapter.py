"""Adapter of TR-DETR."""

from __future__ import annotations

from typing import Any

from hero_plugin import Pair
from hero_plugin.adapters.detr.adapter import DETRAdapter


class TRDETRAdapter(DETRAdapter):
    """Adapter of TR-DETR (AAAI 2024), whose saliency scores read the moments it retrieved: ``relate`` needs all of it.

    The projected features among its outputs (``src_txt_ed`` and the like), which its contrastive losses compare, are
    those before HERO. Clips that have been filtered by their own query are told from the batch's others by that alone:
    with such clips the loss falls, and the model learns nothing from it (docs/results/tr_detr.md has the figures).
    """

    class_names = ("TRDETR",)
    marks = ("input_vid_proj.", "gru_extractor.", "saliency_proj1.")

    def complete(self, outputs: Any, pair: Pair) -> Any:
        """Put in what the contrastive losses compare: clips, words, and their means over all positions, as upstream."""
        before = {
            "src_vid_ed": pair.video,
            "src_txt_ed": pair.query,
            "src_vid_cls_ed": pair.video.mean(1),
            "src_txt_cls_ed": pair.query.mean(1),
        }
        return outputs | {name: value for name, value in before.items() if name in outputs}
