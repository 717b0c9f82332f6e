"""Three losses on the clips' saliency scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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

    Args:
        scores: (B, T).
        positive: (B, pairs) long, clip indices.
        negative: likewise.
        margin: how much higher.

    Returns:
        A scalar.
    """
    gap = margin + scores.gather(1, negative) - scores.gather(1, positive)
    # Twice the mean, as upstream, which so keeps the scale of an earlier version.
    return 2 * gap.clamp(min=0).sum() / max(1, positive.numel())


def rank_contrastive_loss(scores: Tensor, labels: Tensor, video_mask: Tensor) -> Tensor:
    """Contrast, for each of 11 ranks, the clips labelled at least so high with all clips of the video (QD-DETR).

    Upstream loops over the ranks and, asking the device each time, skips one that no clip of the batch reaches. The
    softmax is the same for every rank, and a rank without clips adds 0 anyway: one expression gives the same. It keeps
    upstream's 1e-6 and its division by 12.

    Args:
        scores: (B, T).
        labels: (B, T).
        video_mask: (B, T), 1 where real.

    Returns:
        A scalar.
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

    Args:
        scores: (B, T).
        video_mask: (B, T), 1 where real.

    Returns:
        A scalar.
    """
    return F.softplus(scores.masked_fill(~video_mask.bool(), -torch.inf)).sum(1).mean()
