"""EMB's three losses, and its elastic labels: boundaries near the annotated ones that count as right."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hero_plugin.adapters.emb.layers import count_real, mask_logits
from hero_plugin.tensors import at_least_float32


def temporal_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection of moments over their hull: (..., 2) and (..., 2) -> (...), shapes broadcast."""
    inner = torch.minimum(first[..., 1], second[..., 1]) - torch.maximum(first[..., 0], second[..., 0])
    outer = torch.maximum(first[..., 1], second[..., 1]) - torch.minimum(first[..., 0], second[..., 0])
    return inner.clamp(min=0) / outer.clamp(min=1e-5)


def pseudo_moment(
    moments: Tensor | None, proposals: Tensor, pscores: Tensor, pmask: Tensor, threshold: float
) -> Tensor:
    """Return the moment that the ranker would have annotated: the best scored of the proposals near the annotated one.

    As upstream, the second value is one past the last clip, and the elastic ranges are made with it like that.

    moments (B, 2), or None to choose among all, and proposals (B, P, 2), first and last clip, inclusive, long; scores
    and mask (B, P), 1 for proposals that exist; the overlap with the moment that a proposal needs -> (B, 2) long; the
    moment itself where no proposal overlaps it by ``threshold``.
    """
    past = proposals.new_tensor([0, 1])
    proposals, allowed = proposals + past, pmask.bool()
    if moments is not None:
        moments = moments + past
        allowed = allowed & (temporal_iou(proposals, moments.unsqueeze(1)) >= threshold)
    best = mask_logits(pscores, allowed).topk(1, dim=1).indices  # not argmax, which takes another of equals
    chosen = proposals.gather(1, best.unsqueeze(-1).expand(-1, -1, 2)).squeeze(1)
    return chosen if moments is None else torch.where(allowed.any(dim=1, keepdim=True), chosen, moments)


def positions_between(first: Tensor, second: Tensor, size: int) -> Tensor:
    """Mark the positions from the smaller of two to the larger, both included: (B,) and (B,) -> (B, size) bool."""
    steps = torch.arange(size, device=first.device)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return (steps >= low.unsqueeze(1)) & (steps <= high.unsqueeze(1))


def elementwise_cross_entropy(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Compute binary cross-entropy in float32 at least, where autocast would refuse it. Same shapes in and out."""
    with torch.autocast(device_type=probabilities.device.type, enabled=False):
        probabilities = at_least_float32(probabilities)
        return F.binary_cross_entropy(probabilities, targets.to(probabilities.dtype), reduction="none")


def highlight_loss(scores: Tensor, labels: Tensor, mask: Tensor, epsilon: float = 1e-12) -> Tensor:
    """Compute the cross-entropy over real clips, in which clips inside the moment count twice.

    Scores in [0, 1], labels of 0 and 1, mask, all (B, T) -> a scalar; ``epsilon`` keeps it finite without real clips.
    """
    weights = (1 + labels.long()) * mask
    return (elementwise_cross_entropy(scores, labels) * weights).sum() / (mask.sum() + epsilon)


def ranking_loss(
    moments: Tensor, bounds: Tensor, scores: Tensor, mask: Tensor, min_iou: float = 0.3, max_iou: float = 0.7
) -> Tensor:
    """Compute the cross-entropy of proposal scores against their overlap with the moment, scaled to [0, 1].

    moments (B, 2) and bounds (B, P, 2) in the same unit, scores in [0, 1] and mask (B, P); the target is 0 up to an
    overlap of ``min_iou``, and 1 from ``max_iou`` on.
    """
    if scores.shape != mask.shape:
        raise ValueError(f"mask must be (B, P)={tuple(scores.shape)} as scores, got {tuple(mask.shape)}")
    if min_iou > max_iou:
        raise ValueError(f"min_iou must not exceed max_iou, got {min_iou} and {max_iou}")
    ious = temporal_iou(bounds, moments.unsqueeze(1))
    if min_iou == max_iou:
        targets = (ious >= min_iou).float()
    else:
        targets = ((ious - min_iou) / (max_iou - min_iou)).clamp(min=0, max=1)
    # A weighted mean: selecting the valid entries would have to ask the device how many there are.
    return (elementwise_cross_entropy(scores, targets) * mask).sum() / mask.sum().clamp(min=1)


def range_loss(logits: Tensor, allowed: Tensor) -> Tensor:
    """Compute -log of the softmax mass on allowed positions, in the log domain; mean over the batch."""
    logits = at_least_float32(logits)
    inside = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
    return (logits.logsumexp(dim=1) - inside.logsumexp(dim=1)).mean()


def highlight_labels(
    mask: Tensor, moments: Tensor, proposals: Tensor, pscores: Tensor, pmask: Tensor, threshold: float, extend: float
) -> Tensor:
    """Mark the clips of the moment, widened towards the pseudo moment's start and by a share of the length.

    As upstream, the earlier of the two ends is taken, like the earlier of the two starts. Arguments are the clips'
    mask (B, T), those of ``pseudo_moment``, and the share ``extend`` of the length, at either end -> (B, T) bool.
    """
    pseudo = pseudo_moment(moments, proposals, pscores, pmask, threshold)
    first, last = torch.minimum(moments, pseudo).unbind(dim=1)
    extension = ((last - first + 1).float() * extend).round().long()
    first = (first - extension).clamp(min=0)
    last = torch.minimum(count_real(mask) - 1, last + extension)
    steps = torch.arange(mask.shape[1], device=mask.device)
    return (steps >= first.unsqueeze(1)) & (steps <= last.unsqueeze(1))


def elastic_threshold(epoch: int, epochs: int, low: float = 0.5) -> float:
    """Return the overlap with the annotation that a proposal needs to widen it, in ``(low, 1)``.

    Falls from 1 to ``low`` along a sigmoid centred on the middle of the training, so the labels start as
    annotated and become elastic once proposals can be trusted (EMB, section 3.3). ``epoch`` runs from 0 to
    ``epochs`` - 1.
    """
    if not 0 <= epoch < epochs:
        raise ValueError(f"epoch must be in 0..{epochs - 1}, got {epoch}")
    steepness = 20.0
    return low + (1.0 - low) / (1.0 + math.exp(steepness * (epoch / epochs - 0.5)))
