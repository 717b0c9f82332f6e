"""FlashVTG: the adapter. The model itself is its authors'."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin import Grounding, Pair, Seam
from hero_plugin.adapters.detr.adapter import saliency
from hero_plugin.adapters.detr.lighthouse import CGDETRAdapter
from hero_plugin.aggregation import Kind

TRAINING = ("point", "video_emb", "query_emb", "video_msk", "pymid_msk", "out_class", "out_coord", "pred_spans")
"""Outputs that there are in training alone."""
SUMMED = ("out_class", "out_coord", "saliency_scores", "saliency_scores_neg", "video_emb", "query_emb", "dummy_tokens")


class FlashVTGAdapter(CGDETRAdapter):
    """Adapter of FlashVTG (WACV 2025), an heir of CG-DETR in which every clip of a pyramid proposes a moment.

    Its forward sorts the moments, so that those of two levels no longer correspond, and takes one sample in eval mode.
    As in training it takes a batch, and also returns the moments by clip: so it always runs as in training, with its
    parts in the mode that they are in, and ``complete`` sorts once the levels are combined.
    """

    class_names = ("FlashVTG",)
    weight_prefixes = ("input_vid_proj.", "pyramid.", "class_head.", "conf_head.", "saliency_proj2.")
    width_parameter = "saliency_proj1.bias"
    optional_outputs = (*CGDETRAdapter.optional_outputs, *TRAINING)
    constant = ("targets",)  # it reads a label at most
    requires = (*CGDETRAdapter.requires, "pyramid", "args.clip_length", "max_num_moment")

    kinds: ClassVar[Mapping[str, Kind]] = {
        "t2vattnvalues": "probability",
        "t2vattnvalues_neg": "probability",
        "point": "whole",  # the places of the pyramid's clips
        **dict.fromkeys(SUMMED, "logits"),
        "src_txt_mask_neg": "shared",
        "pymid_msk": "shared",  # one for each layer of the pyramid
    }

    def ground(self, pair: Pair) -> Grounding:
        """Run FlashVTG's own forward, as in training, and leave out what it sorted."""
        outputs = self.run(self.seam, pair)
        del outputs["pred_spans"]
        return Grounding(outputs, saliency(outputs))

    def light_relevance(self, pair: Pair) -> Tensor:
        """Run FlashVTG without its pyramid, and without negative pairs: relevance logits (B, T)."""
        same_video = [""] * len(pair.video)
        return saliency(self.run(self.saliency_seam, pair, vid=same_video))

    def complete(self, outputs: dict[str, Any], pair: Pair) -> dict[str, Any]:
        """Sort the moments; in eval mode return what FlashVTG returns then, of its one sample.

        A frozen base is in eval mode while HERO learns: it returns both.

        Raises:
            ValueError: several samples in eval mode, of which FlashVTG would take none.
        """
        batch, base = len(pair.video), self.base
        outputs = {**outputs, "_avg_factor": batch, "pred_spans": self.sort_moments(outputs)}
        frozen = not any(parameter.requires_grad for parameter in base.parameters())
        if base.training or (frozen and batch > 1):
            return outputs
        if batch > 1:
            raise ValueError(f"FlashVTG takes one sample at a time in eval mode (--eval_bsz 1), got {batch}")
        answer = {
            "label": (pair.extra.get("targets") or {}).get("label", [None])[0],
            "video_msk": outputs["video_msk"],
            "saliency": outputs["saliency_scores"][0],
            "boundary": outputs["pred_spans"][0, : base.max_num_moment],
        }
        kept = {name: output for name, output in outputs.items() if frozen or name not in TRAINING}
        return {**kept, "real_neg_mask": None, "_out": answer}

    def sort_moments(self, outputs: dict[str, Any]) -> Tensor:
        """Return every clip's moment and its score, best first: (B, P, 3), (start, end, score), in seconds."""
        point, scores = outputs["point"], outputs["out_class"].sigmoid()
        ends = outputs["out_coord"] * point.new_tensor([-1.0, 1.0]) * point[:, 3:] + point[:, :1]
        moments = torch.cat([ends / (1 / self.base.args.clip_length), scores], dim=-1)
        return moments.take_along_dim(scores.argsort(dim=1, descending=True), dim=1)

    def make_seam(self, **replacements: Any) -> Seam:
        """Make a seam whose forward runs as in training."""
        return super().make_seam(training=True, **replacements)

    def saliency_stubs(self) -> dict[str, Any]:
        """Return a stub of the pyramid, so that all heads see a single clip."""
        return {"pyramid": FirstClip()}


class FirstClip(nn.Module):
    """A pyramid of one clip: the right number of axes for next to no work."""

    def forward(self, clips: Tensor, mask: Tensor, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Return the first clip of (B, T, D), (B, T)."""
        return [clips[:, :1]], [mask[:, :1]]
