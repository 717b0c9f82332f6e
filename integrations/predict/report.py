"""Report of a prediction: counts, time, rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hero_plugin.integrations.predict.manifest import Manifest
from hero_plugin.integrations.run_folder import versions

STEPS = ("waiting", "computing", "writing")
"""What the time of a shard goes into: waiting for what the reading thread makes, the model, the files."""
_SHOWN = 5


@dataclass
class Totals:
    """Sums over windows, of one shard or of all."""

    asked: int = 0
    answered: int = 0
    videos: int = 0
    """Readings of a video's features; a video that comes again in a later part of the file counts again."""
    clips: int = 0
    hours: float = 0.0
    """Of these videos."""
    searched: float = 0.0
    """Hours of video that queries were looked for in: a video counts for each of its queries."""
    reading: float = 0.0
    """Seconds in the reading thread, parallel to the computing."""
    processor: float = 0.0
    """Seconds of processor time, all threads together: what others on the machine do changes these least."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    dropped: int = 0
    first_dropped: list[dict[str, Any]] = field(default_factory=list)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add a window's journal entry."""
        for name in ("asked", "answered", "videos", "clips", "hours", "searched", "reading", "processor"):
            setattr(self, name, getattr(self, name) + entry[name])
        for name in STEPS:
            self.seconds[name] += entry[name]
        self.dropped += len(entry["dropped"])
        self.first_dropped = (self.first_dropped + entry["dropped"])[:_SHOWN]

    @property
    def busy(self) -> float:
        """Seconds that shards worked, added up; without loading the model and stops."""
        return sum(self.seconds.values())

    def report(self, manifest: Manifest) -> dict[str, Any]:
        """Return the report as JSON values."""
        busy = max(self.busy, 1e-9)
        return {
            "predictions": str(manifest.predictions),
            "queries": self.asked,
            "answered": self.answered,
            "dropped": self.dropped,
            "first_dropped": self.first_dropped,
            "videos_read": self.videos,
            "clips_read": self.clips,
            "hours_read": round(self.hours, 4),
            "hours_searched": round(self.searched, 4),
            "shards": manifest.facts["shards"],
            "shard_seconds": round(self.busy, 3),
            "queries_per_second_and_shard": round(self.answered / busy, 2),
            "processor_seconds": round(self.processor, 3),
            "queries_per_processor_second": round(self.answered / max(self.processor, 1e-9), 2),
            "hours_read_per_second_and_shard": round(self.hours / busy, 4),
            "hours_searched_per_second_and_shard": round(self.searched / busy, 4),
            "share": {name: round(self.seconds[name] / busy, 4) for name in STEPS},
            "reading_thread_share": round(self.reading / busy, 4),
            "of": dict(manifest.facts),
            "versions": versions(),
        }


def text(report: Mapping[str, Any]) -> str:
    """Return a report as text for people."""
    share = report["share"]
    shards = f"{report['shards']} shards of " if report["shards"] > 1 else ""
    per_shard = " per shard" if report["shards"] > 1 else ""
    lines = [
        f"{report['answered']} of {report['queries']} queries answered, {report['videos_read']} videos read "
        f"({report['hours_read']:.1f} h; with each query's own, {report['hours_searched']:.1f} h searched)",
        f"{shards}{report['shard_seconds']:.1f} s in all: {report['queries_per_second_and_shard']:.1f} queries and "
        f"{report['hours_searched_per_second_and_shard']:.2f} h of video searched per second{per_shard}; "
        f"{report['queries_per_processor_second']:.1f} queries per second of processor time",
        f"computing {share['computing']:.0%}, waiting for features {share['waiting']:.0%}, writing "
        f"{share['writing']:.0%}; the reading thread was busy {report['reading_thread_share']:.0%} of the time",
    ]
    if report["dropped"]:
        lines.append(f"{report['dropped']} queries left out (--on-broken drop), all of them in dropped.jsonl:")
        lines += [f"  {each['where']}: {each['why']}" for each in report["first_dropped"]]
    lines.append(f"written: {report['predictions']}")
    return "\n".join(lines)
