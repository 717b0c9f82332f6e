"""Losses that align text and video: Moment-DETR's optional one, and the two that TR-DETR adds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def query_text_loss(queries: Tensor, words: Tensor, foreground: Tensor, samples: int, temperature: float) -> Tensor:
    """Compare matched object queries with the text against the others of their sample (``loss_contrastive_align``).

    Like upstream, it sums over all words, padding included. A sample without windows has no positive and takes no part.

    Args:
        queries: (K, B, Q, E), of unit length.
        words: (B, L, E), of unit length.
        foreground: (K, B, Q) bool, the matched ones.
        samples: how many samples of the batch have one.
        temperature: of the softmax over object queries.

    Returns:
        (K,).
    """
    logits = torch.einsum("kbqe,ble->kbql", queries, words).sum(-1) / temperature
    positive = logits.masked_fill(~foreground, 0.0).sum(-1) / foreground.sum(-1).clamp(min=1)
    losses = logits.logsumexp(-1) - positive
    return losses.masked_fill(~foreground.any(-1), 0.0).sum(-1) / max(1, samples)


def video_text_loss(video: Tensor, text: Tensor, temperature: float = 0.07) -> Tensor:
    """Find a video's own query among the batch's, and a query's own video (TR-DETR's VTC).

    Args:
        video: (B, D), averages over clips.
        text: (B, D), averages over words.
        temperature: of the softmax.

    Returns:
        A scalar.
    """
    logits = F.normalize(text, dim=1) @ F.normalize(video, dim=1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def clip_text_loss(
    clips: Tensor, words: Tensor, relevant: Tensor, video_mask: Tensor, query_mask: Tensor, temperature: float = 0.07
) -> Tensor:
    """Make relevant clips like the query, and the others not (TR-DETR's CTC).

    Like upstream, the mean is over padding, too: its logits are 0.

    Args:
        clips: (B, T, D).
        words: (B, L, D).
        relevant: (B, T), 1 at relevant clips.
        video_mask: (B, T).
        query_mask: (B, L).
        temperature: of the sigmoid.

    Returns:
        A scalar.
    """
    words = F.normalize(words, dim=2) * query_mask.to(words.dtype).unsqueeze(-1)
    query = words.sum(1) / query_mask.to(words.dtype).sum(1, keepdim=True).clamp(min=1)
    similarity = (F.normalize(clips, dim=2) @ query.unsqueeze(-1)).squeeze(-1)
    logits = similarity * video_mask.to(similarity.dtype) / temperature
    return F.binary_cross_entropy_with_logits(logits, relevant.bool().to(logits.dtype))
