"""Merge of finished parts into one file of predictions, checked window by window."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hero_plugin.integrations.files import atomic_write, remove_leftovers, write_text
from hero_plugin.integrations.locks import only_one
from hero_plugin.integrations.predict.journal import PartPaths, read_journal
from hero_plugin.integrations.predict.manifest import Manifest
from hero_plugin.integrations.predict.ranking import Ranking
from hero_plugin.integrations.predict.report import Totals
from hero_plugin.integrations.predict.shards import Shard
from hero_plugin.integrations.problems import DataError, Problem

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
