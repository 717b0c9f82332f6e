"""SGVF: semantic-guided visual filtering, in which each level's words decide what of a clip passes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hero_plugin.tensors import Keys, attend, expect_shape


class SGVF(nn.Module):
    """Semantic-Guided Visual Filtering (HERO, arXiv 2603.06732).

    ``c_i = softmax(V Q_iᵀ / sqrt(d)) Q_i`` over the query's real words, then a gate on every channel of every clip:
    as printed ``V ⊙ sigmoid(c_i)`` (``gate="sigmoid"``), which starts by halving V; or
    ``V ⊙ (1 + a_i ⊙ tanh(c_i / 2))`` (``gate="residual"``), where ``tanh(c/2) = 2 sigmoid(c) - 1`` and the learned
    strength ``a_i`` starts at zero, so that training starts from the base as it is.

    Args:
        dim: D.
        levels: N.
        projections: learned per-level query, key and value projections (the formula has none).
        gate: ``"residual"`` or ``"sigmoid"``.

    Example:
        >>> sgvf = SGVF(dim=128, levels=4)
        >>> sgvf(torch.randn(2, 64, 128), torch.randn(4, 2, 12, 128), torch.ones(2, 12)).shape
        torch.Size([4, 2, 64, 128])
    """

    def __init__(self, dim: int, levels: int = 4, projections: bool = False, gate: str = "residual") -> None:
        super().__init__()
        self.dim, self.levels = dim, levels
        self.projections = nn.Parameter(torch.empty(3, levels, 1, dim, dim)) if projections else None
        self.strength = nn.Parameter(torch.empty(levels, 1, 1, dim)) if gate == "residual" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projections, and start the residual gate at nothing."""
        if self.strength is not None:
            nn.init.zeros_(self.strength)
        if self.projections is not None:
            for matrix in self.projections.data.view(-1, self.dim, self.dim):
                nn.init.xavier_uniform_(matrix)

    def forward(self, video: Tensor, levels: Tensor, query_mask: Tensor, which: Sequence[int] | None = None) -> Tensor:
        """Filter clips by the levels of their queries.

        Args:
            video: (B, T, D) clip features, the same for all levels.
            levels: (N, B, L, D) from ``HEM``, or masked by ``CMTR``.
            query_mask: (B, L), 1/True at real words.
            which: the levels that ``levels`` holds, from 0; None is all.

        Returns:
            (N, B, T, D) filtered clips.
        """
        count = self.levels if which is None else len(which)
        expect_shape("query_mask", query_mask, "B L", (None, None))
        batch, length = query_mask.shape
        expect_shape("levels", levels, "N B L D", (count, batch, length, self.dim))
        expect_shape("video", video, "B T D", (batch, None, self.dim))
        clips = video.unsqueeze(0).expand(count, -1, -1, -1)
        query, key, value = clips, levels, levels
        if self.projections is not None:
            projections = self.projections if which is None else self.projections[:, list(which)]
            query, key, value = (x @ w for x, w in zip((query, key, value), projections, strict=True))
        context = attend(query, key, value, Keys.of(query_mask.bool().unsqueeze(0)))
        if self.strength is None:
            return clips * torch.sigmoid(context)
        strength = self.strength if which is None else self.strength[list(which)]
        return clips * (1.0 + strength * torch.tanh(0.5 * context))

    def extra_repr(self) -> str:
        """Return the choices, for ``print(model)``."""
        gate = "sigmoid" if self.strength is None else "residual"
        return f"dim={self.dim}, levels={self.levels}, projections={self.projections is not None}, gate={gate!r}"
