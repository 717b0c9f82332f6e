"""Which rows of a batch each of several processes runs through its model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hero_plugin.integrations.ranks import Rank


@dataclass(frozen=True)
class BatchShard:
    """One process' part of a batch that all of them train on.

    Attributes:
        rows: what the process runs, by place in the batch: its own rows, then those that only go along.
        counts: how many rows are each process' own, in the order of the batch; 0 where there are too few.
        index: which of them this process is.
    """

    rows: tuple[int, ...]
    counts: tuple[int, ...]
    index: int

    @classmethod
    def of(cls, total: int, rank: Rank, neighbours: int = 0) -> BatchShard:
        """The share of ``rank`` in ``total`` rows; one process alone has them all, and needs no neighbours.

        neighbours: so many rows behind its own go along, the first following the last, because the model compares
            each row with them. A process without a row of its own runs one, for the others wait for its gradients.
        """
        if rank.size == 1:
            return cls(tuple(range(total)), (total,), 0)
        bounds = [total * index // rank.size for index in range(rank.size + 1)]
        counts = tuple(end - start for start, end in pairwise(bounds))
        run = max(1, counts[rank.index] + neighbours)
        rows = tuple((bounds[rank.index] + place) % total for place in range(run))
        return cls(rows, counts, rank.index)

    @property
    def total(self) -> int:
        """Rows of the batch."""
        return sum(self.counts)

    @property
    def count(self) -> int:
        """Rows of this process' own."""
        return self.counts[self.index]
