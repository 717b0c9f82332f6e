"""Conversion of moments, and their generalized overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from hero_plugin.attention import at_least_float32

SMALLEST_LENGTH = 1e-12
"""Smallest denominator, so that moments without length have an overlap too."""


def span_cxw_to_xx(spans: Tensor) -> Tensor:
    """Convert (..., 2) of (center, width) to (..., 2) of (start, end)."""
    center, width = spans.unbind(-1)
    return torch.stack([center - 0.5 * width, center + 0.5 * width], dim=-1)


def generalized_temporal_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the generalized IoU of every pair: (..., N, 2) and (..., M, 2) of (start, end) -> (..., N, M)."""
    return paired_generalized_temporal_iou(first.unsqueeze(-2), second.unsqueeze(-3))


def paired_generalized_temporal_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the generalized IoU (Rezatofighi et al., 2019) of moments side by side, in float32 at least.

    Intersection over union, less the share of the enclosing moment that neither covers.

    Args:
        first: (..., 2) of (start, end), start <= end.
        second: likewise; the leading shapes broadcast.

    Returns:
        (...), in [-1, 1].
    """
    start, end = at_least_float32(first).unbind(-1)
    other_start, other_end = at_least_float32(second).unbind(-1)
    intersection = (torch.minimum(end, other_end) - torch.maximum(start, other_start)).clamp(min=0)
    union = (end - start) + (other_end - other_start) - intersection
    enclosing = torch.maximum(end, other_end) - torch.minimum(start, other_start)
    return intersection / union.clamp(min=SMALLEST_LENGTH) - (enclosing - union) / enclosing.clamp(min=SMALLEST_LENGTH)
