"""The split of a batch's rows across distributed ranks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hero_plugin.integrations.ranks import Rank


@dataclass(frozen=True)
class BatchShard:
    """The rows of a batch that one process runs, where several train on it together.

    Attributes:
        rows: Places in the batch of the rows to run: the process' own, then those that its own are compared with.
        counts: Number of own rows of each process, in the order of the batch; 0 where there are too few.
        index: Number of this process.
    """

    rows: tuple[int, ...]
    counts: tuple[int, ...]
    index: int

    @classmethod
    def of(cls, total: int, rank: Rank, following_rows: int = 0) -> BatchShard:
        """Return the shard of ``rank``; one process alone has all rows.

        A process without own rows runs one all the same, because the others wait for its gradients.

        Args:
            total: Rows of the batch.
            rank: The process.
            following_rows: Number of rows after its own, the first following the last, that run as well, because the
                model compares each row with them.
        """
        if rank.size == 1:
            return cls(tuple(range(total)), (total,), 0)
        bounds = [total * index // rank.size for index in range(rank.size + 1)]
        counts = tuple(end - start for start, end in pairwise(bounds))
        run = max(1, counts[rank.index] + following_rows)
        rows = tuple((bounds[rank.index] + place) % total for place in range(run))
        return cls(rows, counts, rank.index)

    @property
    def total(self) -> int:
        """Return the number of rows of the batch."""
        return sum(self.counts)

    @property
    def count(self) -> int:
        """Return the number of this process' own rows."""
        return self.counts[self.index]
