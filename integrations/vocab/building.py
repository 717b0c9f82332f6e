"""From queries to reworded queries: propose, filter, write down, choose.

What passes goes to a journal beside the output, query by query, so that a stopped build continues; once every query is
there, some of it is chosen, and the output and its manifest are written.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab.filters import Filter, Unseen, first_reason
from hero_plugin.integrations.vocab.nearness import Collision, Similarity
from hero_plugin.integrations.vocab.query import Query, make_query
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.vocab.sources import Source
from hero_plugin.integrations.vocab.swaps import Swap, combine
from hero_plugin.integrations.vocab.tagging import Tagger
from hero_plugin.integrations.words import tokenize

__all__ = ["Builder", "Journal", "Limits", "checksum", "choose"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Limits:
    """What is chosen of that which passes."""

    per_query: int = 1
    """Rewordings of one query."""
    per_word: int = 200
    """Rewordings that one new word may serve; 0 for any number. Every Charades query has a person in it."""
    max_changes: int = 1
    """Words changed in one rewording, where words are swapped."""


@dataclass
class Builder:
    """A source and its filters, in the order in which they judge."""

    source: Source
    filters: Sequence[Filter]
    unseen: Unseen
    tagger: Tagger
    max_changes: int = 1
    turned_down: Counter[str] = field(default_factory=Counter)

    def passing(self, query: Query, proposals: Sequence[Rewording]) -> tuple[list[Rewording], Counter[str]]:
        """The rewordings that pass every filter, each once; and how many each filter turned down."""
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
            last = [each for each in self.filters if isinstance(each, Collision)]
            for double in combine(query, swaps, self.max_changes):
                if first_reason(last, query, double) is None:
                    kept.setdefault(double.sentence.lower(), self._finished(double))
        return list(kept.values()), counts

    def _measured(self, swap: Swap) -> Swap:
        similarity = next((each for each in self.filters if isinstance(each, Similarity)), None)
        near = similarity.of(swap) if similarity else None
        change = replace(swap.changes[0], similarity=None if near is None else round(near, 3))
        return replace(swap, changes=(change,))

    def _finished(self, rewording: Rewording) -> Rewording:
        return Rewording(rewording.sentence, rewording.changes, self.unseen.words(rewording.sentence))

    def run(
        self, records: Sequence[Record], journal: Journal, stop: Callable[[], bool], progress: Progress | None = None
    ) -> bool:
        """Add to the journal what it lacks; False where ``stop`` ended that early."""
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
        self, todo: Iterator[tuple[int, Query]], stop: Callable[[], bool]
    ) -> Iterator[tuple[int, Query, list[Rewording]]]:
        """Queries with what the source proposes, in order; slow sources are asked about several at once."""
        jobs = getattr(self.source, "jobs", 1)
        if jobs == 1:
            for index, query in todo:
                yield index, query, list(self.source.propose(query))
            return
        with ThreadPoolExecutor(jobs) as pool:
            waiting: deque[tuple[int, Query, Any]] = deque()
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


class Journal:
    """What passed, one JSON line a query, in order. Its first line says what build it belongs to."""

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
        """The lines of a journal; a last one that was cut off is removed."""
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            self.path.write_bytes(whole)
        lines = whole.decode().splitlines()
        if lines and json.loads(lines[0]).get("build") != fingerprint:
            raise UserError(f"{self.path} belongs to a build of other files or settings: use those, or delete it")
        return lines

    def add(self, index: int, passed: Sequence[Rewording], counts: Counter[str]) -> None:
        if index != self.done:
            raise ValueError(f"the journal's next query is {self.done}, got {index}")
        row = {"passed": [rewording.to_json() for rewording in passed], "counts": dict(sorted(counts.items()))}
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.done += 1
        if self.done % 50 == 0:
            self._stream.flush()

    def flush(self) -> None:
        self._stream.flush()

    def rows(self) -> Iterator[tuple[list[Rewording], Counter[str]]]:
        """What passed, and the counts, query by query."""
        self.flush()
        with open(self.path, encoding="utf-8") as stream:
            next(stream)
            for line in stream:
                row = json.loads(line)
                yield [Rewording.from_json(each) for each in row["passed"]], Counter(row["counts"])

    def close(self, remove: bool = False) -> None:
        self._stream.close()
        if remove:
            self.path.unlink(missing_ok=True)


def choose(
    records: Sequence[Record], passed: Sequence[Sequence[Rewording]], limits: Limits, seed: int
) -> tuple[list[list[Rewording]], Counter[str]]:
    """Per record the rewordings to keep, and how many `duplicate` and `per word` left out.

    Queries come in an order drawn by the seed, so that a word that may serve only so often is spread over the file;
    of a query's rewordings the one whose new words were used least comes first.
    """
    chosen: list[list[Rewording]] = [[] for _ in records]
    counts: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    taken: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for record in records:
        taken[record.video_id].add(tuple(tokenize(record.sentence)))
    order = sorted(range(len(records)), key=lambda index: _draw(seed, records[index].query_id))
    for index in order:
        record = records[index]

        def rank(rewording: Rewording, record: Record = record) -> tuple[int, bytes]:
            most = max((uses[word] for word in rewording.unseen), default=0)
            return most, _draw(seed, f"{record.query_id} {rewording.sentence}")

        for rewording in sorted(passed[index], key=rank):
            if len(chosen[index]) == limits.per_query:
                break
            words = tuple(tokenize(rewording.sentence))
            if words in taken[record.video_id]:
                counts["duplicate"] += 1
            elif limits.per_word and any(uses[word] >= limits.per_word for word in rewording.unseen):
                counts["per word"] += 1
            else:
                taken[record.video_id].add(words)
                uses.update(rewording.unseen)
                chosen[index].append(rewording)
    return chosen, counts


def _draw(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(stream)


def _hash(stream: Any) -> str:
    found = hashlib.sha256()
    while block := stream.read(1 << 20):
        found.update(block)
    return found.hexdigest()
