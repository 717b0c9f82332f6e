"""Which part of the queries is whose."""

from __future__ import annotations

from dataclasses import dataclass

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.ranks import Rank


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts, by its number from 0.

    A part is a run of whole windows, and windows are the same however many parts there are: so are the batches, and
    the answers to the bit.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str | None, rank: Rank) -> Shard:
        """What ``--shard`` says, else this process' rank.

        Raises:
            UserError: both say something, or ``--shard`` is no part of anything.
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
        """Its windows of ``total``."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)

    def __str__(self) -> str:
        return f"shard {self.index}/{self.count}"
