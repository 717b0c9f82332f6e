"""Masked attention that stays finite when nothing may be attended to."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention over the real keys, ``softmax(Q Kᵀ / sqrt(d)) V``.

    Args:
        query: (..., T, d)
        key, value: (..., L, d)
        key_mask: (..., L) bool, True where a key is real; broadcasts over the leading axes.
        dropout: probability of dropping an attention weight (0 outside training).

    Returns:
        (..., T, d); zeros, with zero gradients, where no key is real.
    """
    any_key = key_mask.any(dim=-1, keepdim=True)
    # A row with nothing to attend to is NaN in a softmax: let it attend everywhere and blank the result.
    allowed = (key_mask | ~any_key).unsqueeze(-2)
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
    return context.masked_fill(~any_key.unsqueeze(-1), 0.0)
