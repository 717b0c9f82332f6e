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


def sigmoid_focal_loss(logits: Tensor, foreground: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Binary cross-entropy of each logit on its own, in which easy ones count less (Lin et al., 2017).

    As TR-DETR has it, ``alpha`` weighs whichever of the two classes is the right one, and 1 - alpha the other.
    logits: (..., Q, 2), foreground: (..., Q) bool -> (..., Q, 2).
    """
    right = torch.stack([foreground, ~foreground], dim=-1).to(logits.dtype)
    # How much is missing to certainty: 1 - p where the class is right, p where it is not.
    missing = torch.where(right.bool(), -logits, logits).sigmoid()
    weight = alpha * right + (1 - alpha) * (1 - right)
    entropy = F.binary_cross_entropy_with_logits(logits, right, reduction="none")
    return weight * missing.pow(gamma) * entropy


def class_error(logits: Tensor) -> Tensor:
    """How many of the matched predictions, in percent, are not classified as foreground; 0 where there are none.

    logits: (K, P, 2) -> (K,), without gradient.
    """
    matched = logits.detach()
    if matched.shape[-2] == 0:
        return matched.new_zeros(len(matched))
    right = matched.argmax(-1) == 0
    return 100 - right.sum(-1).to(matched.dtype) * (100.0 / matched.shape[-2])
