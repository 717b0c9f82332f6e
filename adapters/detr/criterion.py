"""The losses of Moment-DETR, QD-DETR and TR-DETR."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.matcher import (
    HungarianMatcher,
    paired_generalized_temporal_iou,
    span_cxw_to_xx,
    target_windows,
)
from hero_plugin.tensors import at_least_float32, expect_shape


def query_text_loss(queries: Tensor, words: Tensor, foreground: Tensor, samples: int, temperature: float) -> Tensor:
    """Compare matched object queries with the text against the others of their sample (``loss_contrastive_align``).

    Like upstream, it sums over all words, padding included. A sample without windows has no positive and takes no part.

    queries (K, B, Q, E) and words (B, L, E), of unit length, foreground (K, B, Q) bool, the matched ones, how many
    samples of the batch have one, and the temperature of the softmax over object queries -> (K,).
    """
    logits = torch.einsum("kbqe,ble->kbql", queries, words).sum(-1) / temperature
    positive = logits.masked_fill(~foreground, 0.0).sum(-1) / foreground.sum(-1).clamp(min=1)
    losses = logits.logsumexp(-1) - positive
    return losses.masked_fill(~foreground.any(-1), 0.0).sum(-1) / max(1, samples)


def video_text_loss(video: Tensor, text: Tensor, temperature: float = 0.07) -> Tensor:
    """Find a video's own query among the batch's, and a query's own video (TR-DETR's VTC).

    Averages over clips and over words, (B, D) each, and the softmax's temperature -> a scalar.
    """
    logits = F.normalize(text, dim=1) @ F.normalize(video, dim=1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def clip_text_loss(
    clips: Tensor, words: Tensor, relevant: Tensor, video_mask: Tensor, query_mask: Tensor, temperature: float = 0.07
) -> Tensor:
    """Make relevant clips like the query, and the others not (TR-DETR's CTC).

    Like upstream, the mean is over padding, too: its logits are 0. clips (B, T, D), words (B, L, D), relevant (B, T),
    1 at relevant clips, two masks, and the sigmoid's temperature -> a scalar.
    """
    words = F.normalize(words, dim=2) * query_mask.to(words.dtype).unsqueeze(-1)
    query = words.sum(1) / query_mask.to(words.dtype).sum(1, keepdim=True).clamp(min=1)
    similarity = (F.normalize(clips, dim=2) @ query.unsqueeze(-1)).squeeze(-1)
    logits = similarity * video_mask.to(similarity.dtype) / temperature
    return F.binary_cross_entropy_with_logits(logits, relevant.bool().to(logits.dtype))


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """Return the focal loss of each logit on its own (Lin et al., 2017), called as torchvision's.

    It is a binary cross-entropy, of logits and targets from 0 to 1, in which easy logits count less, the more so with
    ``gamma``. Targets of 1 weigh ``alpha``, the others 1 - ``alpha``; a negative one weighs none. ``reduction`` is
    "none", "mean" or "sum".
    """
    # How much is missing to certainty: 1 - p where the target is 1, p where it is 0.
    missing = inputs.sigmoid() * (1 - targets) + (-inputs).sigmoid() * targets
    weight = missing.pow(gamma)
    if alpha >= 0:
        weight = (alpha * targets + (1 - alpha) * (1 - targets)) * weight
    loss = weight * F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    reduced: dict[str, Callable[[], Tensor]] = {"none": lambda: loss, "mean": loss.mean, "sum": loss.sum}
    return reduced[reduction]()


def class_error(logits: Tensor) -> Tensor:
    """Return what percentage of matched predictions is not classified as foreground; 0 where there are none.

    logits (K, P, 2) -> (K,), without gradient.
    """
    matched = logits.detach()
    if matched.shape[-2] == 0:
        return matched.new_zeros(len(matched))
    right = matched.argmax(-1) == 0
    return 100 - right.sum(-1).to(matched.dtype) * (100.0 / matched.shape[-2])


SALIENCY_RANKS = 11
"""Saliency labels, a sum of three annotators' 0 to 4, are compared with 1 to 11."""
SALIENCY_TEMPERATURE = 0.5
"""Of the softmax over clips."""
PADDING_SCORE = -1e3
"""Score of padding and logit of a clip labelled above ``HIGHEST_LABEL``: low enough to have no share in a softmax."""
HIGHEST_LABEL = 100
"""A label above this takes no part among the other clips. Datasets have none; upstream knows it."""


def hinge_loss(scores: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Make a positive clip score higher than its negative by ``margin`` (Moment-DETR).

    scores (B, T), positive and negative clips (B, pairs) long -> a scalar.
    """
    gap = margin + scores.gather(1, negative) - scores.gather(1, positive)
    # Twice the mean, as upstream, which so keeps the scale of an earlier version.
    return 2 * gap.clamp(min=0).sum() / max(1, positive.numel())


def rank_contrastive_loss(scores: Tensor, labels: Tensor, video_mask: Tensor) -> Tensor:
    """Contrast, for each of 11 ranks, the clips labelled at least so high with all clips of the video (QD-DETR).

    Upstream loops over the ranks and, asking the device each time, skips one that no clip of the batch reaches. The
    softmax is the same for every rank, and a rank without clips adds 0 anyway: one expression gives the same. It keeps
    upstream's 1e-6 and its division by 12. scores, labels, video_mask, 1 where real, all (B, T) -> a scalar.
    """
    real, known = video_mask.bool(), labels <= HIGHEST_LABEL
    scores = scores.masked_fill(~real, PADDING_SCORE)
    logits = torch.where(known, scores / SALIENCY_TEMPERATURE, PADDING_SCORE)
    logits = logits - logits.amax(1, keepdim=True)
    log_probability = logits - (logits.exp().sum(1, keepdim=True) + 1e-6).log()
    ranks = torch.arange(1, SALIENCY_RANKS + 1, device=labels.device).view(-1, 1, 1)
    positive = (labels >= ranks).to(scores.dtype)
    summed = (positive * log_probability.masked_fill(~real, 0.0)).sum(-1)
    return -(summed / (positive.sum(-1) + 1e-6)).mean(-1).sum() / (SALIENCY_RANKS + 1)


def negative_pair_loss(scores: Tensor, video_mask: Tensor) -> Tensor:
    """Make no clip relevant to another video's query (QD-DETR): -log(1 - sigmoid(score)), summed over the clips.

    Written as softplus, which it equals; upstream's form is infinite in float32 from a score of about 17.
    scores and video_mask, 1 where real, (B, T) -> a scalar.
    """
    return F.softplus(scores.masked_fill(~video_mask.bool(), -torch.inf)).sum(1).mean()


class SetCriterion(nn.Module):
    """Criterion that matches predictions to windows and computes every loss by upstream's name.

    ``sum(losses[k] * criterion.weight_dict[k] for k in losses if k in criterion.weight_dict)`` trains the model. All
    layers of the decoder are matched and scored together, with one transfer from the device: the costs of matching.

    Losses are computed in float32 at least. A sample may have no window: all its predictions are background, and losses
    of matched pairs are means over the pairs that there are, 0 without any.

    Args:
        config: sizes, weights of the losses and of the matching.
        label_loss: ``"cross_entropy"``, or TR-DETR's ``"focal"``.
        ranks: add QD-DETR's and TR-DETR's contrast of ranks to the saliency loss (needs ``saliency_all_labels``).
        negative_pairs: add QD-DETR's loss of scores under another video's query (needs ``ranks``).
        text_alignment: add TR-DETR's ``loss_vtc`` and ``loss_ctc``, which upstream adds in its training loop.
        use_matcher: False for highlights alone: no loss of windows, whose targets are not read.
    """

    def __init__(
        self,
        config: DETRConfig,
        *,
        label_loss: str = "cross_entropy",
        ranks: bool = False,
        negative_pairs: bool = False,
        text_alignment: bool = False,
        use_matcher: bool = True,
    ) -> None:
        super().__init__()
        if label_loss not in ("cross_entropy", "focal"):
            raise ValueError(f"label_loss must be one of 'cross_entropy', 'focal', got {label_loss!r}")
        if negative_pairs and not ranks:
            raise ValueError("negative_pairs=True needs ranks=True: the ranks are contrasted with the negatives, too")
        self.config = config
        self.matcher = HungarianMatcher(config)
        self.weight_dict = loss_weights(config, text_alignment)
        self.span_loss_type = config.span_loss_type
        self.label_loss = label_loss
        self.ranks = ranks
        self.negative_pairs = negative_pairs
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
        padded = pad_sequence(windows, batch_first=True)
        layer = torch.arange(len(layers), device=logits.device).unsqueeze(1)
        matched = (layer, pairs.sample, pairs.prediction)
        foreground = torch.zeros_like(logits[..., 0], dtype=torch.bool)
        foreground[matched] = True
        losses = {
            **self.span_losses(spans[matched], padded[pairs.sample, pairs.window]),
            "loss_label": self.label_losses(logits, foreground),
            "class_error": class_error(logits[matched]),
        }
        if self.config.contrastive_align_loss:
            queries = at_least_float32(torch.stack([layer["proj_queries"] for layer in layers]))
            words, samples = at_least_float32(outputs["proj_txt_mem"]), sum(len(sample) > 0 for sample in windows)
            losses["loss_contrastive_align"] = query_text_loss(
                queries, words, foreground, samples, self.config.temperature
            )
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
            log_probability = matched.unflatten(-1, (2, self.config.max_v_l)).log_softmax(-1)
            right = log_probability.gather(-1, windows.long().unsqueeze(-1)).squeeze(-1)
            return {"loss_span": -right.sum((1, 2)) / (2 * pairs), "loss_giou": right.new_zeros(len(right))}
        windows = windows.to(matched.dtype)
        giou = paired_generalized_temporal_iou(span_cxw_to_xx(matched), span_cxw_to_xx(windows))
        return {
            "loss_span": (matched - windows).abs().sum((1, 2)) / (2 * pairs),
            "loss_giou": (1 - giou).sum(1) / pairs,
        }

    def label_losses(self, logits: Tensor, foreground: Tensor) -> Tensor:
        """Compute ``loss_label``: (K, B, Q, 2) and (K, B, Q) -> (K,)."""
        if self.label_loss == "focal":
            targets = torch.stack([foreground, ~foreground], dim=-1).to(logits.dtype)
            return sigmoid_focal_loss(logits, targets).mean((1, 2, 3))
        # A cross-entropy in which background, which most predictions are, counts less.
        right, wrong = logits.log_softmax(-1).unbind(-1)
        return -torch.where(foreground, right, self.config.eos_coef * wrong).mean((1, 2))

    def saliency_loss(self, outputs: dict[str, Any], targets: dict[str, Any]) -> Tensor:
        """Make clips that people marked as highlights score higher than others; 0 where the targets have none."""
        scores = at_least_float32(outputs["saliency_scores"])
        if "saliency_pos_labels" not in targets:
            return scores.new_zeros(())
        positive, negative = targets["saliency_pos_labels"], targets["saliency_neg_labels"]
        loss = hinge_loss(scores, positive, negative, self.config.saliency_margin)
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


def loss_weights(config: DETRConfig, text_alignment: bool) -> dict[str, float]:
    """Return the weight of every loss by its name; the decoder's earlier layers weigh as much as its last."""
    by_layer = {
        "loss_span": config.span_loss_coef,
        "loss_giou": config.giou_loss_coef,
        "loss_label": config.label_loss_coef,
    }
    if config.contrastive_align_loss:
        by_layer["loss_contrastive_align"] = config.contrastive_align_loss_coef
    weights = {**by_layer, "loss_saliency": config.lw_saliency}
    if text_alignment:
        weights.update(loss_vtc=config.vtc_loss_coef, loss_ctc=config.ctc_loss_coef)
    if config.aux_loss:
        for layer in range(config.dec_layers - 1):
            weights.update({f"{name}_{layer}": weight for name, weight in by_layer.items()})
    return weights
