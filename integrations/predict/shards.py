"""Division of the queries into shards."""

from __future__ import annotations

from dataclasses import dataclass

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.ranks import Rank


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of the queries, numbered from 0.

    A shard is a run of whole windows, and windows do not depend on the number of shards: neither do batches, nor the
    bits of the answers.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str | None, rank: Rank) -> Shard:
        """Return the shard that ``--shard`` names, else the one of this process's rank.

        Raises:
            UserError: both are given, or ``--shard`` is not I/N.
        """
        if text is None:
            return cls(rank.index, rank.size)
        if rank.size > 1:
            raise UserError(f"--shard {text} and torchrun's {rank.size} processes: give one of the two")
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise UserError(f"--shard must be I/N with I from 0 to N-1, such as 0/4, got {text!r}")
        return cls(int(index), int(count))

    def windows(self, total: int) -> range:
        """Return the numbers of its windows, of ``total``."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)

    def __str__(self) -> str:
        return f"shard {self.index}/{self.count}"
