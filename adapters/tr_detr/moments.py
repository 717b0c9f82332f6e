"""Clips of the moment that a model finds likeliest."""

from __future__ import annotations

import torch
from torch import Tensor

from hero_plugin.adapters.detr.spans import span_cxw_to_xx


def best_moment(pred_logits: Tensor, pred_spans: Tensor, clips: int, clip_length: float) -> tuple[Tensor, Tensor]:
    """Find first and last clip of the object query likeliest to be a moment; they may lie outside the video.

    Args:
        pred_logits: (B, queries, 2), foreground first.
        pred_spans: (B, queries, 2) of (center, width) in [0, 1].
        clips: T.
        clip_length: seconds per clip.

    Returns:
        Two (B,) long.
    """
    best = pred_logits.softmax(-1)[..., 0].argmax(-1)
    spans = span_cxw_to_xx(pred_spans[torch.arange(len(best), device=best.device), best])
    # There and back by way of seconds, as upstream: it can round a border into the clip before.
    bounds = (spans * (clips * clip_length) / clip_length).floor().long()
    return bounds[:, 0], bounds[:, 1]


def slice_clips(features: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Take ``features[b, first[b] : last[b] + 1]`` of each sample b, moved to the front and padded with zeros.

    As in Python, a bound below zero counts from the end, so that a moment said to start before its video starts with
    the video's last clips (or holds none).

    Args:
        features: (B, T, D).
        first: (B,) long, the first clip.
        last: (B,) long, the last clip.

    Returns:
        (B, T, D).
    """
    length = features.shape[1]
    start, stop = (torch.where(at < 0, at + length, at).clamp(0, length) for at in (first, last + 1))
    place = start.unsqueeze(1) + torch.arange(length, device=features.device)
    chosen = features.gather(1, place.clamp(max=length - 1).unsqueeze(-1).expand_as(features))
    return chosen.masked_fill((place >= stop.unsqueeze(1)).unsqueeze(-1), 0)
