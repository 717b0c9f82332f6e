"""Merge of finished parts into one file of predictions, checked window by window: ``hero-plugin predict merge``."""

import json
import zlib
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hero_plugin.integrations.scoring.qvhighlights import CLIP_LENGTH
from hero_plugin.integrations.scoring.submissions import CLIPS_OFF, SALIENCY, WINDOWS
from hero_plugin.integrations.support import (
    DataError,
    Problem,
    UserError,
    atomic_write,
    remove_leftovers,
    versions,
    write_json,
)
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.files import lock_file
from hero_plugin.integrations.tools.predict.store import Manifest, Shard, read_journal

REPORT, DROPPED, RANKING = "report.json", "dropped.jsonl", "ranking.jsonl"
STEPS = ("waiting", "computing", "writing")
"""What the time of a shard goes into: waiting for what the reading thread makes, the model, the files."""


@dataclass
class PredictMergeConfig:
    """Join the parts of a prediction whose shards are all done, as the last of them does by itself."""

    output: Path
    """As given to hero-plugin predict."""
    keep_parts: bool = False
    """Leave the parts where they are."""


def main(config: PredictMergeConfig) -> int:
    """Run ``hero-plugin predict merge``. Return 1 where shards are not done, else 0."""
    manifest = Manifest.open(config.output)
    if not {"shards", "windows", "every_video"} <= manifest.facts.keys():
        raise UserError(f"{config.output}: no prediction here; its manifest is of something else")
    return 0 if merge(manifest, Screen(), config.keep_parts) is not None else 1


def merge(manifest: Manifest, screen: Screen, keep_parts: bool = False) -> dict[str, Any] | None:
    """Join the finished parts in the order of the queries, and delete them unless ``keep_parts``.

    Returns:
        The report; None if shards are not done, or another process is merging.

    Raises:
        DataError: a part does not match its journal.
    """
    shards = [] if finished_report(manifest) is not None else _shards(manifest)
    left = [
        f"{shard} ({len(entries)} of {wanted} windows)" for shard, entries, wanted in shards if len(entries) < wanted
    ]
    if left:
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        screen.say(f"not done yet: {', '.join(left[:8])}{more}; the last to finish merges")
        return None
    with (
        lock_file(manifest.folder / ".merging") as mine,
        screen.working("merging", manifest.facts["windows"]) as progress,
    ):
        if not mine:
            return None
        report = finished_report(manifest) or _merged(manifest, progress)
        if not keep_parts:
            _delete_parts(manifest)
    screen.say(report_text(report))
    return report


def finished_report(manifest: Manifest) -> dict[str, Any] | None:
    """Return the report of a merged prediction, else None."""
    path = manifest.folder / REPORT
    return json.loads(path.read_text("utf-8")) if path.is_file() and manifest.predictions.is_file() else None


def _shards(manifest: Manifest) -> Iterator[tuple[Shard, list[dict[str, Any]], int]]:
    """Iterate over all shards, each with its finished windows' journal entries and how many windows it has."""
    for index in range(manifest.facts["shards"]):
        shard = Shard(index, manifest.facts["shards"])
        wanted = shard.windows(manifest.facts["windows"])
        yield shard, read_journal(shard.part(manifest.folder), manifest.digest, wanted.start), len(wanted)


def _merged(manifest: Manifest, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Write the file of predictions and what belongs to it.

    Every window must be there once, with the bytes that its journal says. Where some videos' clips have no
    saliency, no line keeps it, as a scored file has it on all lines or on none; a search's is not scored. The report is
    written last: where it is, everything is done.
    """
    remove_leftovers(manifest.predictions.parent)
    entries: list[dict[str, Any]] = []
    ranking = Ranking(manifest.facts["top_videos"]) if manifest.facts["every_video"] else None
    made = [entry for _, entries_of_shard, _ in _shards(manifest) for entry in entries_of_shard]
    bare = ranking is None and 0 < _unscored(made) < sum(entry["answered"] for entry in made)
    with atomic_write(manifest.folder / DROPPED) as dropped, atomic_write(manifest.predictions, "wb") as answers:
        for entry, data in _windows(manifest):
            answers.write(_without_saliency(data) if bare else data)
            dropped.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in entry["dropped"])
            entries.append(entry)
            if ranking is not None:
                ranking.add(data)
            progress(entry["window"] + 1, manifest.facts["windows"])
    report = _report(manifest, entries)
    if not report["dropped"]:
        (manifest.folder / DROPPED).unlink()
    if ranking is not None:
        ranking.write(manifest.folder / RANKING)
    write_json(manifest.folder / REPORT, report, ascii=False)
    return report


def _windows(manifest: Manifest) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Iterate over every window's journal entry and answers, checked."""
    for shard, entries, wanted in _shards(manifest):
        part, start = shard.part(manifest.folder), 0
        if len(entries) < wanted:
            raise _damaged(part, f"{len(entries)} of {wanted} windows are done")
        if not entries:
            continue
        with open(part, "rb") as stream:
            for entry in entries:
                data = stream.read(entry["end"] - start)
                start = entry["end"]
                if zlib.crc32(data) != entry["crc"]:
                    raise _damaged(part, f"window {entry['window']} is not what its journal says")
                if entry["answered"] + len(entry["dropped"]) != entry["asked"]:
                    raise _damaged(part, f"window {entry['window']} does not account for all of its queries")
                yield entry, data
            if stream.read(1):
                raise _damaged(part, "something comes after its last window")


def _unscored(entries: Sequence[Mapping[str, Any]]) -> int:
    return sum(entry.get("unscored", 0) for entry in entries)  # journals of earlier versions do not say


def _without_saliency(lines: bytes) -> bytes:
    rows = ({key: value for key, value in json.loads(line).items() if key != SALIENCY} for line in lines.splitlines())
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _damaged(part: Path, what: str) -> DataError:
    return DataError([Problem(str(part), what, "run its shard again: it answers the damaged windows again")])


def _delete_parts(manifest: Manifest) -> None:
    shards = manifest.facts["shards"]
    for index in range(shards):
        Shard(index, shards).part(manifest.folder).unlink(missing_ok=True)


def _report(manifest: Manifest, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return counts, times and rates of a whole prediction."""
    names = ("asked", "answered", "videos", "clips", "hours", "searched", "reading", "processor", *STEPS)
    total = {name: sum(entry[name] for entry in entries) for name in names}
    dropped = [each for entry in entries for each in entry["dropped"]]
    # Seconds that shards worked, added up; without loading the model and stops.
    seconds = sum(total[name] for name in STEPS)
    busy = max(seconds, 1e-9)
    return {
        "predictions": str(manifest.predictions),
        "queries": total["asked"],
        "answered": total["answered"],
        "dropped": len(dropped),
        "first_dropped": dropped[:5],
        "unscored": _unscored(entries),
        "first_unscored": next(filter(None, (entry.get("first_unscored") for entry in entries)), ""),
        # Readings: a video that comes again in a later part of the file counts again.
        "videos_read": total["videos"],
        "clips_read": total["clips"],
        "hours_read": round(total["hours"], 4),
        # What queries were looked for in: a video counts for each of its queries.
        "hours_searched": round(total["searched"], 4),
        "shards": manifest.facts["shards"],
        "shard_seconds": round(seconds, 3),
        "queries_per_second_and_shard": round(total["answered"] / busy, 2),
        # All threads together: what others on the machine do changes this time least.
        "processor_seconds": round(total["processor"], 3),
        "queries_per_processor_second": round(total["answered"] / max(total["processor"], 1e-9), 2),
        "hours_read_per_second_and_shard": round(total["hours"] / busy, 4),
        "hours_searched_per_second_and_shard": round(total["searched"] / busy, 4),
        "share": {name: round(total[name] / busy, 4) for name in STEPS},
        "reading_thread_share": round(total["reading"] / busy, 4),
        "of": dict(manifest.facts),
        "versions": versions(),
    }


def report_text(report: Mapping[str, Any]) -> str:
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
    if report.get("unscored"):
        lines.append(
            f"{report['unscored']} queries are about videos that have not one clip for each {CLIP_LENGTH:g} s, give or "
            f"take {CLIPS_OFF}, as {report['first_unscored']}: "
            + ("they have no saliency" if report["of"]["every_video"] else "no saliency is written")
        )
    lines.append(f"written: {report['predictions']}")
    return "\n".join(lines)


class Ranking:
    """The best videos per query, collected while predictions go by; memory grows with queries and ``top``."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._rows: dict[str, dict[str, Any]] = {}

    def add(self, lines: bytes) -> None:
        """Add predictions of pairs, one JSON line each."""
        for line in lines.splitlines():
            row = json.loads(line)
            query = row["qid"][: -len(row["vid"]) - 1]  # QID@VIDEO
            *window, _ = row[WINDOWS][0]
            videos = self._rows.setdefault(query, {"qid": query, "query": row["query"], "videos": []})["videos"]
            found = {"vid": row["vid"], "score": row["score"], "window": window}
            insort(videos, found, key=lambda each: -each["score"])  # of equal scores, the earlier video first
            del videos[self.top :]

    def write(self, path: Path) -> None:
        """Write one JSON line per query, in the order of the file."""
        with atomic_write(path) as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows.values())
