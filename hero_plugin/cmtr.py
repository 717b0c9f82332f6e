"""CMTR: contrastive masked text refinement, which hides words of a query while training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from hero_plugin.tensors import at_least_float32, expect_shape


class CMTR(nn.Module):
    """Contrastive Masked Text Refinement (HERO, arXiv 2603.06732): the masked queries ``Q^m_i``.

    Each level draws its own mask: every real word is masked with probability ``mask_ratio``, except that a query
    of two words or more keeps at least one and loses at least one. A masked word is replaced by a learned vector
    of its level, which starts at zero. Padding is never masked.

    With ``perturb="noise"`` (not in the paper) a drawn word moves instead, as to another word of like meaning: by
    ``noise_size`` of its length in a random direction.

    Args:
        dim: D.
        levels: N.
        mask_ratio: probability of masking a word, between 0 and 1.
        perturb: ``"mask"`` or ``"noise"``.
        noise_size: length of the noise as a share of the word's own.

    Example:
        >>> cmtr = CMTR(dim=128, levels=4)
        >>> masked, dropped = cmtr(torch.randn(4, 2, 12, 128), torch.ones(2, 12))
        >>> masked.shape, dropped.shape
        (torch.Size([4, 2, 12, 128]), torch.Size([4, 2, 12]))
    """

    def __init__(
        self,
        dim: int,
        levels: int = 4,
        mask_ratio: float = 0.3,
        perturb: Literal["mask", "noise"] = "mask",
        noise_size: float = 0.9,
    ) -> None:
        super().__init__()
        self.dim, self.levels, self.mask_ratio = dim, levels, mask_ratio
        self.perturb, self.noise_size = perturb, noise_size
        self.mask_token = nn.Parameter(torch.empty(levels, 1, 1, dim)) if perturb == "mask" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the vectors of masked words at zero."""
        if self.mask_token is not None:
            nn.init.zeros_(self.mask_token)

    def forward(
        self,
        levels: Tensor,
        query_mask: Tensor,
        generator: Generator | None = None,
        part: tuple[Sequence[int], int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mask words at every level, or move them.

        Args:
            levels: (N, B, L, D).
            query_mask: (B, L), 1/True at real words.
            generator: source of randomness; None is torch's own.
            part: where several processes share a batch, which rows of it these queries are, and how many rows it has:
                they get the masks that one process with the whole batch would draw. None: the queries are the batch.

        Returns:
            masked (N, B, L, D) and dropped (N, B, L) bool, True where a word was masked or moved.
        """
        expect_shape("query_mask", query_mask, "B L", (None, None))
        batch, length = query_mask.shape
        expect_shape("levels", levels, "N B L D", (self.levels, batch, length, self.dim))
        dropped = self.draw(query_mask, generator, part)
        if self.mask_token is not None:
            instead = self.mask_token.to(levels.dtype)
        else:
            words = at_least_float32(levels)
            noise = _of_part(partial(torch.randn, dtype=words.dtype), words, generator, part)
            size = self.noise_size * words.detach().norm(dim=-1, keepdim=True)  # the loss must not learn the size
            instead = (words + size * F.normalize(noise, dim=-1)).to(levels.dtype)
        return torch.where(dropped.unsqueeze(-1), instead, levels), dropped

    def draw(
        self, query_mask: Tensor, generator: Generator | None = None, part: tuple[Sequence[int], int] | None = None
    ) -> Tensor:
        """Draw which words to mask: (B, L) -> (N, B, L) bool."""
        real = query_mask.bool()
        noise = _of_part(torch.rand, real.expand(self.levels, -1, -1), generator, part)
        dropped = (noise < self.mask_ratio) & real
        several = real.sum(-1, keepdim=True) > 1
        lowest = noise.masked_fill(~real, 2.0).argmin(-1, keepdim=True)
        highest = noise.masked_fill(~real, -1.0).argmax(-1, keepdim=True)
        # In place of a draw that masks nothing or everything: the nearest one that does not.
        none_lost = several & ~dropped.any(-1, keepdim=True)
        none_kept = several & ~(real & ~dropped).any(-1, keepdim=True)
        place = torch.arange(real.shape[-1], device=real.device)
        return (dropped | (none_lost & (place == lowest))) & ~(none_kept & (place == highest))

    def extra_repr(self) -> str:
        """Return the choices, for ``print(model)``."""
        moved = f", perturb='noise', noise_size={self.noise_size}" if self.perturb == "noise" else ""
        return f"dim={self.dim}, levels={self.levels}, mask_ratio={self.mask_ratio}{moved}"


def _of_part(
    draw: Callable[..., Tensor], like: Tensor, generator: Generator | None, part: tuple[Sequence[int], int] | None
) -> Tensor:
    """Draw numbers of the shape of ``like``, (N, B, ...), for all rows of a shared batch, and return a part."""
    levels, batch, *rest = like.shape
    rows, total = (range(batch), batch) if part is None else part
    drawn = draw((levels, total, *rest), device=like.device, generator=generator)
    return drawn if list(rows) == list(range(total)) else drawn[:, list(rows)]
