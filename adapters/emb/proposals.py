"""Map of candidate moments: runs of cells, with the maximum of their features."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hero_plugin.adapters.emb.layers import count_real

# Upstream meant -1e30. This rounds to zero beside any feature, and its checkpoints were trained with it.
CELL_PADDING = -1e-30


def cell_max(x: Tensor, scale: int) -> Tensor:
    """Take the maximum over each run of ``scale`` positions: (B, T, D) -> (B, ceil(T / scale), D)."""
    tail = -x.shape[1] % scale
    if tail:
        x = F.pad(x, (0, 0, 0, tail), value=CELL_PADDING)
    # Not amax: padding clips come out of the encoder alike, and upstream's gradient goes to the first of equals.
    return x.unflatten(1, (-1, scale)).max(dim=2).values


class Proposals(NamedTuple):
    """Map of proposals without its empty half, shortest first."""

    features: Tensor
    """(B, P, D)."""
    bounds: Tensor
    """(B, P, 2) long, first and last clip, inclusive."""
    mask: Tensor
    """(B, P), 1 where a proposal lies in its video."""
    cells: Tensor
    """(P,) long, where each belongs in the flattened (N, N) map."""


class ProposalMap:
    """2D temporal map as in 2D-TAN: entry (i, j) is the moment from cell i to cell j.

    Args:
        downscale: clips per cell.
        windows: how many lengths each group holds; a group's start points are twice as far apart as those of the
            group before.
    """

    def __init__(self, downscale: int, windows: Sequence[int]) -> None:
        self.scale = downscale
        self.windows = tuple(windows)

    def size(self, clips: int) -> int:
        """Return how many cells ``clips`` clips make: the map is this many squared."""
        return -(-clips // self.scale)

    def cells(self, clips: int, device: torch.device) -> Tensor:
        """Return where the map has entries: indices into its flattened form, (P,) long, shortest first."""
        size = self.size(clips)
        lengths = self._lengths(size)
        return torch.cat([torch.arange(0, size - a, s, device=device) * (size + 1) + a for a, s, _ in lengths])

    def compact(self, feats: Tensor, mask: Tensor) -> Proposals:
        """Make the map's entries: feats (B, T, D), mask (B, T)."""
        mask = mask.to(feats.dtype)
        size = self.size(feats.shape[1])
        cells = self.cells(feats.shape[1], feats.device)
        start, end = cells // size, cells % size
        valid = cell_max(mask.unsqueeze(-1), self.scale).squeeze(-1)[:, end]
        features = torch.cat(list(self._pooled(feats, mask)), dim=1)
        bounds = torch.stack([start * self.scale, (end + 1) * self.scale - 1], dim=-1)
        last_clip = count_real(mask).view(-1, 1, 1) - 1
        bounds = torch.minimum(bounds, last_clip) * valid.unsqueeze(-1).long()
        features = features.masked_fill(~valid.bool().unsqueeze(-1), 0.0)
        return Proposals(features, bounds, valid, cells)

    def _pooled(self, feats: Tensor, mask: Tensor) -> Iterator[Tensor]:
        """Yield the features of each length of proposals, from those of the length before."""
        x = cell_max(feats.masked_fill(~mask.bool().unsqueeze(-1), torch.finfo(feats.dtype).min), self.scale)
        for _, _, step in self._lengths(x.shape[1]):
            if step == 1:
                x = torch.maximum(x[:, :-1], x[:, 1:])
            elif step == 2:
                x = torch.maximum(torch.maximum(x[:, 0:-2:2], x[:, 1:-1:2]), x[:, 2::2])
            yield x

    def _lengths(self, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield (length - 1, distance of the starts, step from the length before: 0 none, 1 next, 2 coarser)."""
        offset, stride, count = 0, 1, size
        for group, window in enumerate(self.windows):
            for index in range(window):
                step = int(index > 0) or 2 * int(group > 0)
                if count < step + 1:
                    break
                offset += stride if step else 0
                count = {0: count, 1: count - 1, 2: (count - 1) // 2}[step]
                yield offset, stride, step
            stride *= 2


def scatter_to_map(entries: Tensor, cells: Tensor, area: int) -> Tensor:
    """Put entries in their places in a map of zeros: (B, P, ...) and (P,) -> (B, area, ...)."""
    return entries.new_zeros(entries.shape[0], area, *entries.shape[2:]).index_copy(1, cells, entries)
