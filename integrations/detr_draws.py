"""Random draws of a DETR's training step: clips for the saliency loss, and moments where there are many.

Upstream draws in its loading processes; here the training step does, seeded anew each time: a resumed run draws alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_WINDOWS = 5
"""Most moments of a query that a step trains on."""


def draw_pairs(
    positives: Tensor, negatives: Tensor, hard_positive: Tensor, hard_negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw two clips per query that should score high, and two that should score low.

    Args:
        positives, negatives: (B, T), clips are drawn in proportion; a row of ``negatives`` without any takes the
            positives that were drawn.
        hard_positive, hard_negative: (B,) long, a clip that comes first, before a drawn one; -1: both are drawn,
            different ones where there are two.

    Returns:
        Two (B, 2) long.
    """
    high, low = _two(positives), _two(negatives)
    low = torch.where(negatives.sum(1, keepdim=True) > 0, low, high)
    return _with_hard(hard_positive, high), _with_hard(hard_negative, low)


def draw_windows(spans: Tensor, windows: Tensor, most: int = MAX_WINDOWS) -> tuple[Tensor, Tensor]:
    """Draw at most ``most`` moments per query, each equally likely.

    Args:
        spans: (B, W, 2), padded.
        windows: (B,) long on the CPU, how many are real.
        most: Most moments per query.

    Returns:
        Spans (B, W', 2), in their order, and (B,) on the CPU.
    """
    if spans.shape[1] <= most:
        return spans, windows
    keys = torch.rand(spans.shape[:2], device=spans.device)
    real = (torch.arange(spans.shape[1]) < windows.unsqueeze(1)).to(spans.device, non_blocking=True)
    chosen = keys.masked_fill(~real, -1.0).topk(most, dim=1).indices.sort(dim=1).values
    return spans.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2)), windows.clamp(max=most)


def _two(weights: Tensor) -> Tensor:
    """Draw two places per row (B, 2), without replacement, in proportion to ``weights`` (B, T); a lone one twice.

    A race of exponential clocks: ``torch.multinomial`` draws the same way, but refuses rows with one place, and
    waits for the device to check them.
    """
    clocks = torch.empty_like(weights).exponential_().clamp(min=torch.finfo(weights.dtype).tiny)
    speeds, places = (weights / clocks).topk(min(2, weights.shape[1]), dim=1)
    first, second = places[:, 0], torch.where(speeds[:, -1] > 0, places[:, -1], places[:, 0])
    return torch.stack([first, second], dim=1)


def _with_hard(hard: Tensor, drawn: Tensor) -> Tensor:
    scored = (hard >= 0).unsqueeze(1)
    return torch.where(scored, torch.stack([hard, drawn[:, 0]], dim=1), drawn)
