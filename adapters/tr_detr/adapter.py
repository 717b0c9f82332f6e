"""TR-DETR as a grounder."""

from __future__ import annotations

from hero_plugin.adapters.detr.adapter import DETRAdapter


class TRDETRAdapter(DETRAdapter):
    """TR-DETR (AAAI 2024), whose saliency scores read the moments it retrieved: ``relate`` needs all of it.

    The projected features among its outputs (``src_txt_ed`` and the like), which its contrastive losses compare, are
    weighted sums over levels as everything else is: so every level's words and clips are aligned.
    """

    class_names = ("TRDETR",)
    marks = ("input_vid_proj.", "gru_extractor.", "saliency_proj1.")
