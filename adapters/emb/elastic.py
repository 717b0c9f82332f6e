"""Elastic labels: boundaries beside the annotated ones that count as right."""

from __future__ import annotations

import torch
from torch import Tensor

from hero_plugin.adapters.emb.layers import mask_logits


def temporal_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection of moments over their hull: (..., 2) and (..., 2) -> (...), shapes broadcast."""
    inner = torch.minimum(first[..., 1], second[..., 1]) - torch.maximum(first[..., 0], second[..., 0])
    outer = torch.maximum(first[..., 1], second[..., 1]) - torch.minimum(first[..., 0], second[..., 0])
    return inner.clamp(min=0) / outer.clamp(min=1e-5)


def confident_proposals(
    bounds: Tensor,
    scores: Tensor,
    mask: Tensor,
    moments: Tensor | None = None,
    threshold: float = 0.5,
    k: int = 1,
) -> Tensor:
    """Choose the k best scored proposals among those that overlap the annotation enough.

    Args:
        bounds: (B, P, 2), first and last clip of each proposal.
        scores: (B, P).
        mask: (B, P), 1 for proposals that exist.
        moments: (B, 2), the annotations, or None to choose among all.
        threshold: the overlap needed.
        k: how many.

    Returns:
        (B, k, 2); the moment itself where no proposal overlaps it by ``threshold``.
    """
    allowed = mask.bool()
    if moments is not None:
        allowed = allowed & (temporal_iou(bounds, moments.unsqueeze(1)) >= threshold)
    best = mask_logits(scores, allowed).topk(k, dim=1).indices
    chosen = bounds.gather(1, best.unsqueeze(-1).expand(-1, -1, 2))
    if moments is None:
        return chosen
    return torch.where(allowed.any(dim=1).view(-1, 1, 1), chosen, moments.unsqueeze(1))


def pseudo_moment(
    moments: Tensor | None, proposals: Tensor, pscores: Tensor, pmask: Tensor, threshold: float
) -> Tensor:
    """Return the moment that the ranker would have annotated.

    As upstream, the second value is one past the last clip, and the elastic ranges are made with it like that.

    Args:
        moments: (B, 2) long, first and last clip, inclusive, or None.
        proposals: (B, P, 2) long, likewise.
        pscores: (B, P).
        pmask: (B, P), 1 for proposals that exist.
        threshold: the overlap with ``moments`` that a proposal needs.

    Returns:
        (B, 2) long.
    """
    past = proposals.new_tensor([0, 1])
    around = None if moments is None else moments + past
    return confident_proposals(proposals + past, pscores, pmask, around, threshold).squeeze(1)


def positions_between(first: Tensor, second: Tensor, size: int) -> Tensor:
    """Mark the positions from the smaller of two to the larger, both included: (B,) and (B,) -> (B, size) bool."""
    steps = torch.arange(size, device=first.device)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return (steps >= low.unsqueeze(1)) & (steps <= high.unsqueeze(1))
