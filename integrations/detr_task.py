"""The task of Moment-DETR, QD-DETR and TR-DETR, plain or with HERO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.spans import span_cxw_to_xx
from hero_plugin.attention import at_least_float32
from hero_plugin.integrations.detr_batches import DetrCollate, DetrExample
from hero_plugin.integrations.detr_draws import draw_pairs, draw_windows
from hero_plugin.integrations.detr_labels import is_cut
from hero_plugin.integrations.grounding import Grounded, score
from hero_plugin.integrations.submissions import annotation_row, has_official_labels, submission_line
from hero_plugin.integrations.task import Batch, Prediction, Scores, level_gauges
from hero_plugin.qvhighlights import qvhighlights_scores
from hero_plugin.structure import map_tensors

INPUTS = ("src_txt", "src_txt_mask", "src_vid", "src_vid_mask")


class DetrTask:
    """The DETRs' losses and predictions, after their authors' ``train.py`` and ``inference.py``.

    clip_length: seconds, moments found are rounded to whole clips of it; 0 leaves them as they are.
    """

    scores_clips = True
    file_for_each_set = True

    def __init__(
        self, model: nn.Module, criterion: nn.Module, collate: DetrCollate, *, clip_length: float = 0.0
    ) -> None:
        self.model, self.criterion, self.collate, self.clip_length = model, criterion, collate, clip_length
        self.following_rows = int(getattr(criterion, "negative_pairs", False))  # an authors' criterion does not say
        unused = ["contrastive_align_projection_vid", *([] if model.use_txt_pos else ["txt_position_embed"])]
        self.unused_parameters = [
            name for name, _ in model.named_parameters() if not set(name.split(".")).isdisjoint(unused)
        ]

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Compute all losses of the criterion; ``loss`` is the weighted sum of those that have a weight."""
        targets = draw_targets(batch)
        outputs = model(*(batch[name] for name in INPUTS))
        # The forward may run in half precision; the losses and the matching must not.
        with torch.autocast(batch["src_vid"].device.type, enabled=False):
            losses = self.criterion.train()(map_tensors(lambda tensor, key: at_least_float32(tensor), outputs), targets)
        weights = self.criterion.weight_dict
        total = sum(losses[name] * weights[name] for name in losses if name in weights)
        reported = {name: value for name, value in losses.items() if isinstance(value, Tensor)}
        return {**reported, "loss": total}

    def predict(self, model: nn.Module, batch: Batch) -> Prediction:
        """Predict all moments of each query, most probable first, clipped to the video."""
        outputs = model(*(batch[name] for name in INPUTS))
        scores = outputs["pred_logits"].float().softmax(-1)[..., 0]
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        durations = batch["durations"][:, None, None]
        moments = span_cxw_to_xx(outputs["pred_spans"].float()) * self._seen(batch)[:, None, None]
        moments = torch.minimum(moments.clamp(min=0), durations)
        if self.clip_length:
            moments = torch.round(moments / self.clip_length) * self.clip_length
        moments = moments.gather(1, order.unsqueeze(-1).expand(-1, -1, 2))
        saliency = outputs["saliency_scores"].float()
        return Prediction(moments, scores, ranked(saliency, batch["src_vid_mask"]), saliency)

    def _seen(self, batch: Batch) -> Tensor:
        """Return the seconds (B,) that a video's spans are shares of: all, unless it was cut at ``max_clips``."""
        clips, durations = batch["clips"], batch["durations"]
        if not self.clip_length:
            return durations
        covered = (clips * self.clip_length).to(durations.dtype)
        return torch.where(is_cut(durations, clips, self.clip_length), covered, durations)

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """Return the saliency scores."""
        outputs = model(*(batch[name] for name in INPUTS)) if outputs is None else outputs
        return [outputs["saliency_scores"].float()], batch["src_vid_mask"]

    def truth(self, item: DetrExample) -> Sequence[tuple[float, float]]:
        """Return the annotated moments in seconds."""
        return item.record.moments

    def scores(self, items: Sequence[DetrExample], grounded: Grounded) -> Scores:
        """Score a set; QVHighlights' official scores as well where every query has its annotations."""
        scores = score(self, items, grounded)
        records = [item.record for item in items]
        if records and all(map(has_official_labels, records)):
            official = qvhighlights_scores(self.submission(items, grounded), list(map(annotation_row, records)))
            # A range of lengths that no window is in has no score.
            scores.update({name: value for name, value in official["brief"].items() if value == value})
        return scores

    def merit(self, scores: Scores) -> float:
        """Return mAP over all windows, as upstream, where there is one; else the sum of the usual four scores."""
        return scores["MR-full-mAP"] if "MR-full-mAP" in scores else sum(scores.values())

    def gauges(self, model: nn.Module) -> dict[str, list[float]]:
        """Return the weights of the levels."""
        return level_gauges(model)

    def prediction_lines(self, name: str, items: Sequence[DetrExample], grounded: Grounded) -> list[dict[str, Any]]:
        """Return a submission in QVHighlights' form, which has no place for the set's name."""
        return self.submission(items, grounded)

    def submission(self, items: Sequence[DetrExample], grounded: Grounded) -> list[dict[str, Any]]:
        """Return one line per query in QVHighlights' form, with the model's own saliency scores."""
        return [
            submission_line(item.record, grounded.moments[row], grounded.scores[row], grounded.saliency[row])
            for row, item in enumerate(items)
        ]


def draw_targets(batch: Batch) -> dict[str, Any]:
    """Draw the targets of the criteria, from torch's generator, where upstream's data sets draw them."""
    spans, windows = draw_windows(batch["spans"], batch["windows"])
    words = torch.arange(batch["src_txt"].shape[1], device=spans.device) < batch["words"].unsqueeze(1)
    high, low = draw_pairs(batch["positives"], batch["negatives"], batch["hard_positive"], batch["hard_negative"])
    return {
        "span_labels": [{"spans": row[:count]} for row, count in zip(spans, windows.tolist(), strict=True)],
        "saliency_pos_labels": high,
        "saliency_neg_labels": low,
        "saliency_all_labels": batch["scores"],
        "src_pos_mask": batch["relevant"],
        "src_txt_mask": words.to(batch["src_txt_mask"].dtype),
    }


def ranked(saliency: Tensor, mask: Tensor) -> Tensor:
    """Scale scores to 0, a video's lowest, to 1, its highest: the DETRs train only their order, so 0 means nothing.

    Args:
        saliency: (B, T).
        mask: (B, T).

    Returns:
        (B, T), 0 on padding.
    """
    real = mask.bool()
    low = saliency.masked_fill(~real, torch.inf).amin(1, keepdim=True)
    high = saliency.masked_fill(~real, -torch.inf).amax(1, keepdim=True)
    return ((saliency - low) / (high - low).clamp(min=1e-6)).masked_fill(~real, 0.0)
