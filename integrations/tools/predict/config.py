"""Flags of ``hero-plugin predict``, and the division of its queries into shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hero_plugin.integrations.data.checks import OnBroken
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.process import Rank
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.training.config import AnswerInputs
from hero_plugin.integrations.training.device import Amp


@dataclass(kw_only=True)
class PredictConfig(AnswerInputs):
    """Answer every query of a file by a trained run, in shards, resuming where it was stopped.

    The same command goes on after Ctrl-C, a kill or a power cut. Shards: start it under torchrun, or give --shard.
    """

    queries: Path
    """Queries: any annotation file (moments are not read), or JSON lines of {"vid", "query"}, with "qid" and "duration"
    where there are any. With --every-video also plain text, one sentence per line."""
    output: Path
    """FILE.jsonl, or a folder that predictions.jsonl comes into."""
    every_video: bool = False
    """Ask every query of every video that has features, and rank the videos."""
    top_videos: int = 20
    """Number of videos in a ranking."""
    shard: str | None = None
    """I/N: answer the Ith (from 0) of N parts. Under torchrun each process takes one by itself."""
    checkpoint: str = "best"
    """best or last."""
    clip_seconds: float | None = None
    """Seconds per clip: a video without a known length is as long as its clips."""
    on_broken: OnBroken = "error"
    """Queries that cannot be answered: list them and stop, or leave them out and list them in the report."""
    top_k: int = 0
    """Windows to keep per query; 0: all that the base predicts."""
    saliency: bool = True
    """Write the scores of a video's clips, where the base has them."""
    batch_size: int = 64
    """Queries per batch."""
    window: int = 512
    """Queries that are read, sorted and written together; memory holds the features of about three windows."""
    readers: int = 4
    """Threads that read features."""
    sync_seconds: float = 5.0
    """Seconds between two flushes to the disk: at most that much work is repeated after a kill."""
    device: str = "auto"
    """auto takes CUDA where there is one, each process of torchrun its own."""
    amp: Amp | None = None
    """Half precision in the forward pass; as in the run unless given."""

    def check(self) -> None:
        """Raise ``UserError`` listing every impossible value."""
        wrong = too_small(self, batch_size=1, window=1, readers=1, top_videos=1, top_k=0, sync_seconds=0, threads=0)
        if self.clip_seconds is not None and not self.clip_seconds > 0:
            wrong.append(f"--clip-seconds must be positive, got {self.clip_seconds}")
        if self.checkpoint not in ("best", "last"):
            wrong.append(f"--checkpoint must be best or last, got {self.checkpoint!r}")
        wrong += [f"{path}: no such file" for path in (self.queries, self.durations) if path and not path.is_file()]
        if wrong:
            raise UserError("\n".join(wrong))


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
