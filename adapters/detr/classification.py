"""Which predictions are foreground: two losses over two logits, foreground first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_cross_entropy(logits: Tensor, foreground: Tensor, background_weight: float) -> Tensor:
    """Cross-entropy in which background, which most predictions are, counts less.

    logits: (..., Q, 2), foreground: (..., Q) bool -> (..., Q).
    """
    right, wrong = logits.log_softmax(-1).unbind(-1)
    return -torch.where(foreground, right, background_weight * wrong)


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """Return the focal loss of each logit on its own (Lin et al., 2017), called as torchvision's.

    It is a binary cross-entropy in which easy logits count less.

    Args:
        inputs: logits of any shape.
        targets: what the logits should say, from 0 to 1, of the same shape.
        alpha: weight of the targets that are 1, against 1 - alpha of the others; negative for no weights.
        gamma: how much less easy logits count.
        reduction: "none", "mean" or "sum".
    """
    # How much is missing to certainty: 1 - p where the target is 1, p where it is 0.
    missing = inputs.sigmoid() * (1 - targets) + (-inputs).sigmoid() * targets
    weight = missing.pow(gamma)
    if alpha >= 0:
        weight = (alpha * targets + (1 - alpha) * (1 - targets)) * weight
    loss = weight * F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    return {"none": lambda: loss, "mean": loss.mean, "sum": loss.sum}[reduction]()


def foreground_targets(logits: Tensor, foreground: Tensor) -> Tensor:
    """Return which of the two logits is right: (..., Q, 2) and (..., Q) bool -> (..., Q, 2) of the logits' type."""
    return torch.stack([foreground, ~foreground], dim=-1).to(logits.dtype)


def class_error(logits: Tensor) -> Tensor:
    """How many of the matched predictions, in percent, are not classified as foreground; 0 where there are none.

    logits: (K, P, 2) -> (K,), without gradient.
    """
    matched = logits.detach()
    if matched.shape[-2] == 0:
        return matched.new_zeros(len(matched))
    right = matched.argmax(-1) == 0
    return 100 - right.sum(-1).to(matched.dtype) * (100.0 / matched.shape[-2])
