"""Builder of rewordings: propose, filter, write to the journal."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.checks import ReadReport
from hero_plugin.integrations.data.records import REWORDED, Record, Rewording, is_reworded
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import checksum, write_text
from hero_plugin.integrations.tools.vocab.english import TaggedQuery, Tagger, make_query
from hero_plugin.integrations.tools.vocab.filters import (
    CollisionFilter,
    Filter,
    SimilarityFilter,
    UnseenFilter,
    first_reason,
)
from hero_plugin.integrations.tools.vocab.sources import Source
from hero_plugin.integrations.tools.vocab.swaps import Swap, combine

# Choice among the rewordings that pass: some of each query, no word too often.


_FEW = 3
"""So often a word may serve in the smallest of files."""


@dataclass(frozen=True)
class ChoiceLimits:
    """Limits on how many rewordings are chosen."""

    per_query: int = 1
    """Rewordings of one query with each number of changes."""
    per_word: int = 200
    """Rewordings that one new word may serve; 0 for any number. Every Charades query has a person in it."""
    word_share: float = 1.0
    """Largest share of the file's rewordings that one new word may serve, over and above --per-word."""
    max_changes: int = 1
    """Changes in one rewording, where words and expressions are swapped: 2 gives rewordings with one and with two."""


def choose(
    records: Sequence[Record], passed: Sequence[Sequence[Rewording]], limits: ChoiceLimits, seed: int
) -> tuple[list[list[Rewording]], Counter[str]]:
    """Choose rewordings for the file.

    Queries come in an order drawn by the seed, so that a word with a limit is spread over the file; of a query's
    rewordings the one whose new words were used least comes first. Rewordings with one change are chosen first, then
    those with two. The share of a word is of the file that results: if frequent words make the file smaller, it is
    chosen anew with less of each.

    Returns:
        The rewordings to keep per record, and how many ``duplicate`` and ``per word`` left out.
    """
    most = limits.per_word or sum(map(len, passed))
    while True:
        chosen, counts, often = _choose(records, passed, limits, seed, most)
        allowed = max(_FEW, int(limits.word_share * sum(map(len, chosen))))
        if often <= allowed:
            return chosen, counts
        most = min(most - 1, max(allowed, often - max(1, (often - allowed) // 2)))


def _choose(
    records: Sequence[Record], passed: Sequence[Sequence[Rewording]], limits: ChoiceLimits, seed: int, most: int
) -> tuple[list[list[Rewording]], Counter[str], int]:
    """Return what is kept if a word is used at most ``most`` times, what is left out, and the most uses of a word."""
    chosen: list[list[Rewording]] = [[] for _ in records]
    counts: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    taken: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for record in records:
        taken[record.video_id].add(tuple(tokenize(record.sentence)))
    order = sorted(range(len(records)), key=lambda index: _draw(seed, records[index].query_id))
    for number in range(1, limits.max_changes + 1):
        for index in order:
            record = records[index]
            some = [each for each in passed[index] if min(len(each.changes), limits.max_changes) == number]

            def rank(rewording: Rewording, record: Record = record) -> tuple[int, bytes]:
                served = max((uses[word] for word in rewording.unseen), default=0)
                return served, _draw(seed, f"{record.query_id} {rewording.sentence}")

            kept = 0
            for rewording in sorted(some, key=rank):
                if kept == limits.per_query:
                    break
                words = tuple(tokenize(rewording.sentence))
                if words in taken[record.video_id]:
                    counts["duplicate"] += 1
                elif any(uses[word] >= most for word in rewording.unseen):
                    counts["per word"] += 1
                else:
                    taken[record.video_id].add(words)
                    uses.update(rewording.unseen)
                    chosen[index].append(rewording)
                    kept += 1
    return chosen, counts, max(uses.values(), default=0)


def _draw(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


# Journal of a build: what passed per query, so that a stopped build continues.
#
# JSON lines, kept by hand: SQLite would need the same checks of the build and of the order.


class BuildJournal:
    """JSON lines of what passed, one per query, in order. The first line says what build it belongs to."""

    def __init__(self, path: Path, fingerprint: str, resume: bool) -> None:
        self.path, self.done = path, 0
        if path.exists() and not resume:
            raise UserError(f"{path} is what a stopped build left: continue it with --resume, or delete it")
        lines = self._whole_lines(fingerprint) if path.exists() else []
        self.done = max(len(lines) - 1, 0)
        self._stream = open(path, "a" if lines else "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        if not lines:
            self._stream.write(json.dumps({"build": fingerprint}) + "\n")

    def _whole_lines(self, fingerprint: str) -> list[str]:
        """Return the lines of a journal; a last one that was cut off is removed."""
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            self.path.write_bytes(whole)
        lines = whole.decode().splitlines()
        if lines and json.loads(lines[0]).get("build") != fingerprint:
            raise UserError(f"{self.path} belongs to a build of other files or settings: use those, or delete it")
        return lines

    def add(self, index: int, passed: Sequence[Rewording], counts: Counter[str]) -> None:
        """Add what passed for the next query."""
        if index != self.done:
            raise ValueError(f"the journal's next query is {self.done}, got {index}")
        row = {"passed": [rewording.to_json() for rewording in passed], "counts": dict(sorted(counts.items()))}
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.done += 1
        if self.done % 50 == 0:
            self._stream.flush()

    def flush(self) -> None:
        """Hand everything added to the operating system."""
        self._stream.flush()

    def rows(self) -> Iterator[tuple[list[Rewording], Counter[str]]]:
        """Iterate over queries: what passed, and the counts."""
        self.flush()
        with open(self.path, encoding="utf-8") as stream:
            next(stream)
            for line in stream:
                row = json.loads(line)
                yield [Rewording.from_json(each) for each in row["passed"]], Counter(row["counts"])

    def close(self, remove: bool = False) -> None:
        """Close the file, and delete it if ``remove``."""
        self._stream.close()
        if remove:
            self.path.unlink(missing_ok=True)


@dataclass
class Builder:
    """A source and its filters, in the order in which they judge."""

    source: Source
    filters: Sequence[Filter]
    unseen: UnseenFilter
    tagger: Tagger
    max_changes: int = 1
    turned_down: Counter[str] = field(default_factory=Counter)

    def passing(self, query: TaggedQuery, proposals: Sequence[Rewording]) -> tuple[list[Rewording], Counter[str]]:
        """Return the rewordings that pass every filter, each once, and how many each filter turned down."""
        counts: Counter[str] = Counter(proposed=len(proposals))
        kept: dict[str, Rewording] = {}
        swaps: list[Swap] = []
        for proposal in proposals:
            found = first_reason(self.filters, query, proposal)
            if found is not None:
                counts[found[0]] += 1
                continue
            if proposal.sentence.lower() in kept:
                counts["duplicate"] += 1
                continue
            if isinstance(proposal, Swap):
                proposal = self._measured(proposal)
                swaps.append(proposal)
            kept[proposal.sentence.lower()] = self._finished(proposal)
        if self.max_changes > 1:
            last = [each for each in self.filters if isinstance(each, CollisionFilter)]
            for double in combine(query, swaps, self.max_changes):
                if first_reason(last, query, double) is None:
                    kept.setdefault(double.sentence.lower(), self._finished(double))
        return list(kept.values()), counts

    def _measured(self, swap: Swap) -> Swap:
        similarity = next((each for each in self.filters if isinstance(each, SimilarityFilter)), None)
        near = similarity.of(swap) if similarity else None
        change = replace(swap.changes[0], similarity=None if near is None else round(near, 3))
        return replace(swap, changes=(change,))

    def _finished(self, rewording: Rewording) -> Rewording:
        words = self.unseen.words(rewording.sentence)
        return Rewording(rewording.sentence, rewording.changes, words, rewording.source)

    def run(
        self,
        records: Sequence[Record],
        journal: BuildJournal,
        stop: Callable[[], bool],
        progress: Callable[[int, int], None] | None = None,
    ) -> bool:
        """Add to the journal the queries that it lacks; return False if ``stop`` ended that early."""
        by_video: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_video[record.video_id].append(record)
        todo = (
            (index, make_query(record, by_video[record.video_id], self.tagger))
            for index, record in enumerate(records)
            if index >= journal.done
        )
        for index, query, proposals in self._asked(todo, stop):
            journal.add(index, *self.passing(query, proposals))
            if progress is not None:
                progress(index + 1, len(records))
            if stop():
                break
        journal.flush()
        return journal.done == len(records)

    def _asked(
        self, todo: Iterator[tuple[int, TaggedQuery]], stop: Callable[[], bool]
    ) -> Iterator[tuple[int, TaggedQuery, list[Rewording]]]:
        """Iterate over queries with their proposals, in order; a slow source gets several queries at once."""
        jobs = getattr(self.source, "jobs", 1)
        if jobs == 1:
            for index, query in todo:
                yield index, query, list(self.source.propose(query))
            return
        with ThreadPoolExecutor(jobs) as pool:
            waiting: deque[tuple[int, TaggedQuery, Any]] = deque()
            for index, query in todo:
                waiting.append((index, query, pool.submit(lambda q: list(self.source.propose(q)), query)))
                if len(waiting) > jobs:
                    place, asked, answer = waiting.popleft()
                    yield place, asked, answer.result()
                if stop():
                    break
            while waiting and not stop():
                place, asked, answer = waiting.popleft()
                yield place, asked, answer.result()


# File made by ``vocab build``, and its manifest.


def manifest_path(output: Path) -> Path:
    """Return the path of the manifest of an output."""
    return output.with_name(output.name + ".manifest.json")


def read_built(path: Path, report: ReadReport | None = None) -> list[Record]:
    """Read a file made by ``vocab build``.

    Raises:
        UserError: no query has a link to its original.
    """
    records = read_annotations(path, on_outside="keep", report=report)
    if not any(map(is_reworded, records)):
        raise UserError(f"{path} has no links to original queries: expected a file of `hero-plugin vocab build`")
    return records


def check_overwrite(output: Path, input: Path, overwrite: bool) -> None:
    """Raise ``UserError`` if the output exists and may not be replaced."""
    if output.exists() and (not overwrite or output.resolve() == input.resolve()):
        raise UserError(f"{output} exists already: add --overwrite, or name another file (never the input)")


def summary(built: Sequence[Record]) -> dict[str, Any]:
    """Return counts of the rewordings, for the manifest."""
    links = [record.extra[REWORDED] for record in built if REWORDED in record.extra]
    words = Counter(word for link in links for word in _brought(link))
    return {
        "rewordings": len(links),
        "reworded_queries": len({link["query"] for link in links}),
        "by_kind": dict(sorted(Counter(link["kind"] for link in links).items())),
        "by_part": dict(sorted(Counter(link.get("part") or "unknown" for link in links).items())),
        "by_changes": {str(n): c for n, c in sorted(Counter(len(link["changes"]) for link in links).items())},
        "by_unseen_words": {str(n): c for n, c in sorted(Counter(len(link["unseen"]) for link in links).items())},
        "new_words": len(words),
        "most_used": dict(words.most_common(20)),
    }


def _brought(link: dict[str, Any]) -> set[str]:
    """Return the unseen words that the changes brought; others stood in the original."""
    return set(link["unseen"]) & {word for change in link["changes"] for word in tokenize(change["new"])}


def write_manifest(output: Path, target: str, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the output's checksum."""
    manifest["output"] = {"file": output.name, "format": target, "sha256": checksum(output)}
    write_text(manifest_path(output), json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def print_summary(manifest: dict[str, Any]) -> None:
    """Print the counts of a manifest."""
    if "proposed" in manifest:
        down = ", ".join(f"{name} {count:,}" for name, count in manifest["turned_down"].items())
        print(f"  {manifest['proposed']:,} proposed, {manifest['passed']:,} passed; turned down: {down}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in manifest["by_kind"].items())
    parts = ", ".join(f"{count} {part}" for part, count in manifest["by_part"].items())
    words = ", ".join(f"{word} {count}" for word, count in list(manifest["most_used"].items())[:8])
    print(f"  {kinds}; {parts}; {manifest['new_words']} new words, most often {words}")
    if manifest.get("decisions"):
        numbers = {key: value for key, value in manifest["decisions"].items() if isinstance(value, int)}
        print("  decisions: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in numbers.items()))
