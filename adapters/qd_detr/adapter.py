"""QD-DETR as a grounder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hero_plugin import Pair
from hero_plugin.adapters.detr.adapter import DETRAdapter, saliency
from hero_plugin.adapters.detr.stand_ins import Encoded, Progress, has, skip_layers
from hero_plugin.versions import is_compiling


class QDDETRAdapter(DETRAdapter):
    """QD-DETR (CVPR 2023), which pairs every video with the next sample's words as well.

    With levels folded level-major, that next sample is the same as in the base at every level; only the last sample of
    a level meets the first one's words as the next level has them. ``relate`` encodes the positive pairs alone and
    skips the decoder; in a compiled model it encodes both.
    """

    class_names = ("QDDETR",)
    marks = ("input_vid_proj.", "transformer.t2v_encoder.", "global_rep_token", "saliency_proj2.")
    skips_decoder = True
    encoders = ("t2v_encoder", "encoder")

    def relate(self, pair: Pair) -> Tensor:
        """The positive pairs' saliency: relevance logits (B, T)."""
        if is_compiling():
            return super().relate(pair)
        return saliency(self.run(self.entered(**self.positives()), pair))

    def positives(self) -> dict[str, Any]:
        """Stand-ins for one forward, which comes to the decoder when it is done with the positive pairs."""
        progress = Progress()
        layers = skip_layers(self.base, f"{self.transformer}.decoder.layers", progress)
        paths = [path for name in self.encoders if has(self.base, path := f"{self.transformer}.{name}")]
        return {**layers, **{path: Encoded(self.base.get_submodule(path), progress) for path in paths}}
