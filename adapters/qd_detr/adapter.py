"""Adapter of QD-DETR."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hero_plugin import Pair
from hero_plugin.adapters.detr.adapter import DETRAdapter, saliency
from hero_plugin.adapters.detr.stand_ins import CachedEncoder, ForwardState, has_module, skip_layers
from hero_plugin.versions import is_compiling


class QDDETRAdapter(DETRAdapter):
    """Adapter of QD-DETR (CVPR 2023), which pairs every video with the next sample's words as well.

    With levels folded level-major, that next sample is the same as in the base at every level; only the last sample of
    a level meets the first one's words as the next level has them. ``relate`` encodes the positive pairs alone and
    skips the decoder; in a compiled model it encodes both.
    """

    class_names = ("QDDETR",)
    marks = ("input_vid_proj.", "transformer.t2v_encoder.", "global_rep_token", "saliency_proj2.")
    skips_decoder = True
    encoders = ("t2v_encoder", "encoder")

    def relate(self, pair: Pair) -> Tensor:
        """Return the positive pairs' saliency: relevance logits (B, T)."""
        if is_compiling():
            return super().relate(pair)
        return saliency(self.run(self.make_seam(**self.positive_pass_stubs()), pair))

    def positive_pass_stubs(self) -> dict[str, Any]:
        """Return the stubs of one forward, which comes to its decoder once the positive pairs are encoded."""
        state = ForwardState()
        layers = skip_layers(self.base, f"{self.transformer}.decoder.layers", state)
        paths = [path for name in self.encoders if has_module(self.base, path := f"{self.transformer}.{name}")]
        return {**layers, **{path: CachedEncoder(self.base.get_submodule(path), state) for path in paths}}
