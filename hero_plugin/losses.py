"""The two losses that HERO adds, in float32 whatever the model computes in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hero_plugin.attention import at_least_float32
from hero_plugin.checks import expect_shape
from hero_plugin.config import CONSISTENCY


def relevance_loss(logits: Tensor, labels: Tensor, video_mask: Tensor) -> Tensor:
    """``L_RS``: mean binary cross-entropy of the clips' relevance over all real clips of the batch.

    Args:
        logits: (B, T) relevance logits.
        labels: (B, T), 1 for clips inside the moment.
        video_mask: (B, T), 1/True at real clips.

    Returns:
        A scalar; 0 when no clip is real.
    """
    _expect_same(logits, labels=labels, video_mask=video_mask)
    real = video_mask.bool()
    logits, labels = at_least_float32(logits).masked_fill(~real, 0.0), labels.to(at_least_float32(logits).dtype)
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return _mean(loss, real)


def consistency_loss(logits: Tensor, masked_logits: Tensor, video_mask: Tensor, kind: str = "clips") -> Tensor:
    """``L_CL = D_KL(RS || RS^m)``: masking words must not change which clips are relevant.

    Args:
        logits: (B, T) relevance logits from the whole query.
        masked_logits: (B, T) relevance logits from the masked query.
        video_mask: (B, T), 1/True at real clips.
        kind: ``"clips"`` compares two distributions over the real clips (softmax), averaged over the batch;
            ``"bernoulli"`` compares each clip's probability (sigmoid), averaged over all real clips.

    Returns:
        A scalar, never negative but for rounding; 0 when no clip is real.
    """
    _expect_same(logits, masked_logits=masked_logits, video_mask=video_mask)
    real = video_mask.bool()
    if kind == "clips":
        before, after = _log_softmax(logits, real), _log_softmax(masked_logits, real)
        divergence = (before.exp() * (before - after)).masked_fill(~real, 0.0).sum(-1)
        return _mean(divergence, real.any(-1))
    if kind == "bernoulli":
        before, after = (
            at_least_float32(logits).masked_fill(~real, 0.0),
            at_least_float32(masked_logits).masked_fill(~real, 0.0),
        )
        inside = before.sigmoid() * (F.logsigmoid(before) - F.logsigmoid(after))
        outside = (-before).sigmoid() * (F.logsigmoid(-before) - F.logsigmoid(-after))
        return _mean(inside + outside, real)
    raise ValueError(f"kind must be one of {', '.join(map(repr, CONSISTENCY))}, got {kind!r}")


def hero_losses(
    relevance: Tensor,
    masked_relevance: Tensor | None,
    labels: Tensor,
    video_mask: Tensor,
    consistency: str = "clips",
) -> dict[str, Tensor]:
    """``L_RS = (BCE(RS) + BCE(RS^m)) / 2`` and ``L_CL``, not weighted.

    Args:
        relevance, masked_relevance: (B, T) logits; without masked ones (evaluation, no CMTR) only BCE(RS) remains.
        labels, video_mask: (B, T).
        consistency: kind of ``consistency_loss``.

    Returns:
        ``loss_relevance`` and, with masked relevance, ``loss_consistency``.
    """
    loss = relevance_loss(relevance, labels, video_mask)
    if masked_relevance is None:
        return {"loss_relevance": loss}
    masked_loss = relevance_loss(masked_relevance, labels, video_mask)
    return {
        "loss_relevance": 0.5 * (loss + masked_loss),
        "loss_consistency": consistency_loss(relevance, masked_relevance, video_mask, consistency),
    }


def _log_softmax(logits: Tensor, real: Tensor) -> Tensor:
    # A finite fill keeps a video without real clips finite; those rows are dropped from the mean.
    return at_least_float32(logits).masked_fill(~real, -1e9).log_softmax(-1)


def _mean(values: Tensor, real: Tensor) -> Tensor:
    return values.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


def _expect_same(logits: Tensor, **others: Tensor) -> None:
    expect_shape("logits", logits, "B T", (None, None))
    for name, other in others.items():
        expect_shape(name, other, "B T", tuple(logits.shape))
