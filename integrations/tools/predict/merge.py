"""Merge of finished parts into one file of predictions, checked window by window."""

from __future__ import annotations

import heapq
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hero_plugin.integrations.scoring.submissions import WINDOWS
from hero_plugin.integrations.support.errors import DataError, Problem
from hero_plugin.integrations.support.files import atomic_write, only_one, remove_leftovers, write_text
from hero_plugin.integrations.tools.predict.config import Shard
from hero_plugin.integrations.tools.predict.store import Manifest, PartPaths, read_journal
from hero_plugin.integrations.training.run_folder import versions

# Report of a prediction: counts, time, rates.


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


# Ranking of all videos per query.


class Ranking:
    """The best videos per query, collected while predictions go by; memory grows with queries and ``top``."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._best: dict[str, list[tuple[float, int, str, list[float]]]] = {}
        self._sentences: dict[str, str] = {}
        self._count = 0

    def add(self, lines: bytes) -> None:
        """Add predictions of pairs, one JSON line each."""
        for line in lines.splitlines():
            row = json.loads(line)
            query = row["qid"][: -len(row["vid"]) - 1]  # QID@VIDEO
            *window, _ = row[WINDOWS][0]
            best = self._best.setdefault(query, [])
            self._sentences.setdefault(query, row["query"])
            self._count += 1
            entry = (row["score"], -self._count, row["vid"], window)  # of equal scores, the earlier video
            if len(best) < self.top:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per query, in the order of the file."""
        return [
            {
                "qid": query,
                "query": self._sentences[query],
                "videos": [
                    {"vid": video, "score": score, "window": window}
                    for score, _, video, window in sorted(best, reverse=True)
                ],
            }
            for query, best in self._best.items()
        ]

    def write(self, path: Path) -> None:
        """Write the rows as JSON lines."""
        with atomic_write(path) as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows())


REPORT, DROPPED, RANKING = "report.json", "dropped.jsonl", "ranking.jsonl"


def shards_of(manifest: Manifest) -> list[Shard]:
    """Return all shards of a prediction."""
    return [Shard(index, manifest.facts["shards"]) for index in range(manifest.facts["shards"])]


def entries_of(manifest: Manifest, shard: Shard) -> list[dict[str, Any]]:
    """Return the journal entries of a shard's finished windows that are still in its part."""
    wanted, paths = shard.windows(manifest.facts["windows"]), PartPaths.of(manifest.folder, shard)
    return read_journal(paths, manifest.digest, wanted.start)


def unfinished(manifest: Manifest) -> list[tuple[Shard, int, int]]:
    """Return the unfinished shards, each with how many of its windows are finished and how many it has."""
    found = []
    for shard in shards_of(manifest):
        done, wanted = len(entries_of(manifest, shard)), len(shard.windows(manifest.facts["windows"]))
        if done < wanted:
            found.append((shard, done, wanted))
    return found


def finished_report(manifest: Manifest) -> dict[str, Any] | None:
    """Return the report of a merged prediction, else None."""
    path = manifest.folder / REPORT
    return json.loads(path.read_text("utf-8")) if path.is_file() and manifest.predictions.is_file() else None


def merge(
    manifest: Manifest, *, keep_parts: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any] | None:
    """Join the finished parts in the order of the queries, delete them, and return the report.

    Every window must be there once, with the bytes and lines that its journal says. The report is written last:
    where it is, everything is done.

    Args:
        manifest: the prediction.
        keep_parts: do not delete the parts.
        progress: called with the number of windows merged and their total.

    Returns:
        The report; None if another process is merging.

    Raises:
        DataError: a part is incomplete, or does not match its journal.
    """
    with only_one(manifest.folder / ".merging") as mine:
        if not mine:
            return None
        if (known := finished_report(manifest)) is not None:
            if not keep_parts:
                _delete_parts(manifest)
            return known
        _check_all_there(manifest)
        remove_leftovers(manifest.predictions.parent)
        totals, windows = Totals(), manifest.facts["windows"]
        ranking = Ranking(manifest.facts["top_videos"]) if manifest.facts["every_video"] else None
        with (
            atomic_write(manifest.folder / DROPPED) as dropped,
            atomic_write(manifest.predictions, "wb") as answers,
        ):
            for entry, data in _windows(manifest):
                answers.write(data)
                dropped.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in entry["dropped"])
                totals.add(entry)
                if ranking is not None:
                    ranking.add(data)
                progress(entry["window"] + 1, windows)
        if not totals.dropped:
            (manifest.folder / DROPPED).unlink()
        if ranking is not None:
            ranking.write(manifest.folder / RANKING)
        report = totals.report(manifest)
        write_text(manifest.folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        if not keep_parts:
            _delete_parts(manifest)
    return report


def _check_all_there(manifest: Manifest) -> None:
    left = unfinished(manifest)
    if left:
        raise DataError(
            Problem(str(manifest.folder), f"{shard}: {done} of {wanted} windows are done", "run this shard again")
            for shard, done, wanted in left
        )


def _windows(manifest: Manifest) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Iterate over every window's journal entry and answers, checked."""
    for shard in shards_of(manifest):
        entries = entries_of(manifest, shard)
        if not entries:
            continue
        part, start = PartPaths.of(manifest.folder, shard).part, 0
        with open(part, "rb") as stream:
            for entry in entries:
                data = stream.read(entry["end"] - start)
                start = entry["end"]
                whole = len(data) == 0 or data.endswith(b"\n")
                if zlib.crc32(data) != entry["crc"] or data.count(b"\n") != entry["answered"] or not whole:
                    raise _damaged(part, f"window {entry['window']} is not what its journal says")
                if entry["answered"] + len(entry["dropped"]) != entry["asked"]:
                    raise _damaged(part, f"window {entry['window']} does not account for all of its queries")
                yield entry, data
            if stream.read(1):
                raise _damaged(part, "something comes after its last window")


def _damaged(part: Path, what: str) -> DataError:
    return DataError([Problem(str(part), what, "run its shard again: it answers the damaged windows again")])


def _delete_parts(manifest: Manifest) -> None:
    for shard in shards_of(manifest):
        PartPaths.of(manifest.folder, shard).part.unlink(missing_ok=True)
