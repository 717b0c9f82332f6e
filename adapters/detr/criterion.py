"""The losses of Moment-DETR, QD-DETR and TR-DETR."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.alignment import clip_text_loss, query_text_loss, video_text_loss
from hero_plugin.adapters.detr.classification import (
    class_error,
    foreground_targets,
    sigmoid_focal_loss,
    weighted_cross_entropy,
)
from hero_plugin.adapters.detr.matcher import HungarianMatcher, pad_windows, target_windows
from hero_plugin.adapters.detr.saliency import hinge_loss, negative_pair_loss, rank_contrastive_loss
from hero_plugin.adapters.detr.spans import paired_generalized_temporal_iou, span_cxw_to_xx
from hero_plugin.attention import at_least_float32
from hero_plugin.checks import expect_shape

LABEL_LOSSES = ("cross_entropy", "focal")


class SetCriterion(nn.Module):
    """Criterion that matches predictions to windows and computes every loss by upstream's name.

    ``sum(losses[k] * criterion.weight_dict[k] for k in losses if k in criterion.weight_dict)`` trains the model. All
    layers of the decoder are matched and scored together; the device is asked once, for the costs of matching.

    Losses are computed in float32 at least. A sample may have no window: all its predictions are background, and losses
    of matched pairs are means over the pairs that there are, 0 without any.

    Args:
        matcher: which prediction answers which window.
        weight_dict: weight of each loss by its name.
        label_loss: ``"cross_entropy"``, or TR-DETR's ``"focal"``.
        eos_coef: weight of background in the cross-entropy.
        saliency_margin: how much higher a positive clip scores.
        ranks: add QD-DETR's and TR-DETR's contrast of ranks to the saliency loss (needs ``saliency_all_labels``).
        negative_pairs: add QD-DETR's loss of scores under another video's query (needs ``ranks``).
        contrastive_align: add ``loss_contrastive_align``.
        temperature: of ``loss_contrastive_align``.
        text_alignment: add TR-DETR's ``loss_vtc`` and ``loss_ctc``, which upstream adds in its training loop.
        use_matcher: False for highlights alone: no loss of windows, whose targets are not read.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        weight_dict: dict[str, float],
        *,
        label_loss: str = "cross_entropy",
        eos_coef: float = 0.1,
        saliency_margin: float = 0.2,
        ranks: bool = False,
        negative_pairs: bool = False,
        contrastive_align: bool = False,
        temperature: float = 0.07,
        text_alignment: bool = False,
        use_matcher: bool = True,
    ) -> None:
        super().__init__()
        if label_loss not in LABEL_LOSSES:
            raise ValueError(f"label_loss must be one of {', '.join(map(repr, LABEL_LOSSES))}, got {label_loss!r}")
        if negative_pairs and not ranks:
            raise ValueError("negative_pairs=True needs ranks=True: the ranks are contrasted with the negatives, too")
        self.matcher = matcher
        self.weight_dict = weight_dict
        self.span_loss_type = matcher.span_loss_type
        self.label_loss = label_loss
        self.eos_coef = eos_coef
        self.saliency_margin = saliency_margin
        self.ranks = ranks
        self.negative_pairs = negative_pairs
        self.contrastive_align = contrastive_align
        self.temperature = temperature
        self.text_alignment = text_alignment
        self.use_matcher = use_matcher

    def forward(self, outputs: dict[str, Any], targets: dict[str, Any]) -> dict[str, Tensor]:
        """Compute every loss, not weighted; those of auxiliary layers end in ``_0``, ``_1``, ...

        Args:
            outputs: the model's. ``aux_outputs`` may be absent.
            targets: ``span_labels``: B times ``{"spans": (windows, 2)}``, (center, width) in [0, 1], or the first and
                last clip where ``span_loss_type`` is ``"ce"``. Optional, with ``saliency_neg_labels``:
                ``saliency_pos_labels`` (B, pairs) long; without them the saliency loss is 0.
                ``saliency_all_labels``: (B, T), needed with them where ``ranks``.
                ``src_pos_mask``: (B, T), relevant clips, for ``loss_ctc``; with it ``src_txt_mask``, the model's input.
        """
        with torch.autocast(outputs["saliency_scores"].device.type, enabled=False):
            losses = self.window_losses(outputs, targets) if self.use_matcher else {}
            losses["loss_saliency"] = self.saliency_loss(outputs, targets)
            if self.text_alignment:
                losses.update(self.text_losses(outputs, targets))
        return losses

    def window_losses(self, outputs: dict[str, Any], targets: dict[str, Any]) -> dict[str, Tensor]:
        """Compute the losses of the predictions of every layer: spans, classes, and alignment with the text."""
        layers = [outputs, *outputs.get("aux_outputs", ())]
        logits = at_least_float32(torch.stack([layer["pred_logits"] for layer in layers]))
        spans = at_least_float32(torch.stack([layer["pred_spans"] for layer in layers]))
        windows = target_windows(targets, logits.shape[1])
        pairs = self.matcher.match(logits, spans, windows)
        layer = torch.arange(len(layers), device=logits.device).unsqueeze(1)
        matched = (layer, pairs.sample, pairs.prediction)
        foreground = torch.zeros_like(logits[..., 0], dtype=torch.bool)
        foreground[matched] = True
        losses = {
            **self.span_losses(spans[matched], pad_windows(windows)[pairs.sample, pairs.window]),
            "loss_label": self.label_losses(logits, foreground),
            "class_error": class_error(logits[matched]),
        }
        if self.contrastive_align:
            queries = at_least_float32(torch.stack([layer["proj_queries"] for layer in layers]))
            words, samples = at_least_float32(outputs["proj_txt_mem"]), sum(len(sample) > 0 for sample in windows)
            losses["loss_contrastive_align"] = query_text_loss(queries, words, foreground, samples, self.temperature)
        names = ["", *(f"_{place}" for place in range(len(layers) - 1))]
        return {
            name + suffix: loss
            for name, by_layer in losses.items()
            for suffix, loss in zip(names, by_layer.unbind(), strict=True)
        }

    def span_losses(self, matched: Tensor, windows: Tensor) -> dict[str, Tensor]:
        """Compute ``loss_span`` and ``loss_giou``, (K,) each: (K, P, S) predicted and (K, P, 2) annotated."""
        pairs = max(1, matched.shape[1])
        if self.span_loss_type == "ce":
            log_probability = matched.unflatten(-1, (2, self.matcher.max_v_l)).log_softmax(-1)
            right = log_probability.gather(-1, windows.long().unsqueeze(-1)).squeeze(-1)
            return {"loss_span": -right.sum((1, 2)) / (2 * pairs), "loss_giou": right.new_zeros(len(right))}
        windows = windows.to(matched.dtype)
        giou = paired_generalized_temporal_iou(span_cxw_to_xx(matched), span_cxw_to_xx(windows))
        return {
            "loss_span": (matched - windows).abs().sum((1, 2)) / (2 * pairs),
            "loss_giou": (1 - giou).sum(1) / pairs,
        }

    def label_losses(self, logits: Tensor, foreground: Tensor) -> Tensor:
        """(K, B, Q, 2) and (K, B, Q) -> (K,)."""
        if self.label_loss == "focal":
            return sigmoid_focal_loss(logits, foreground_targets(logits, foreground)).mean((1, 2, 3))
        return weighted_cross_entropy(logits, foreground, self.eos_coef).mean((1, 2))

    def saliency_loss(self, outputs: dict[str, Any], targets: dict[str, Any]) -> Tensor:
        """Make clips that people marked as highlights score higher than others; 0 where the targets have none."""
        scores = at_least_float32(outputs["saliency_scores"])
        if "saliency_pos_labels" not in targets:
            return scores.new_zeros(())
        positive, negative = targets["saliency_pos_labels"], targets["saliency_neg_labels"]
        loss = hinge_loss(scores, positive, negative, self.saliency_margin)
        if not self.ranks:
            return loss
        labels, video_mask = require_target(targets, "saliency_all_labels", "the saliency loss"), outputs["video_mask"]
        expect_shape("saliency_all_labels", labels, "B T", tuple(scores.shape))
        if self.negative_pairs:
            negatives = at_least_float32(outputs["saliency_scores_neg"])
            loss = loss + negative_pair_loss(negatives, video_mask)
            scores = torch.cat([scores, negatives], dim=1)
            labels = torch.cat([labels, torch.zeros_like(labels)], dim=1)
            video_mask = torch.cat([video_mask, video_mask], dim=1)
        return loss + rank_contrastive_loss(scores, labels, video_mask)

    def text_losses(self, outputs: dict[str, Any], targets: dict[str, Any]) -> dict[str, Tensor]:
        """Compute TR-DETR's ``loss_vtc``, and ``loss_ctc`` where the targets say which clips are relevant."""
        losses = {}
        if "src_vid_cls_ed" in outputs:
            video, text = at_least_float32(outputs["src_vid_cls_ed"]), at_least_float32(outputs["src_txt_cls_ed"])
            losses["loss_vtc"] = video_text_loss(video, text)
        if "src_vid_ed" in outputs and "src_pos_mask" in targets:
            clips, words = at_least_float32(outputs["src_vid_ed"]), at_least_float32(outputs["src_txt_ed"])
            relevant, query_mask = targets["src_pos_mask"], require_target(targets, "src_txt_mask", "loss_ctc")
            expect_shape("src_pos_mask", relevant, "B T", tuple(clips.shape[:2]))
            expect_shape("src_txt_mask", query_mask, "B L", tuple(words.shape[:2]))
            losses["loss_ctc"] = clip_text_loss(clips, words, relevant, outputs["video_mask"], query_mask)
        return losses


def require_target(targets: dict[str, Any], name: str, loss: str) -> Tensor:
    """Return ``targets[name]``, or raise a ``KeyError`` that says which loss needs it."""
    if name not in targets:
        raise KeyError(f"targets have no {name}, which {loss} needs; they have {', '.join(targets)}")
    return targets[name]
