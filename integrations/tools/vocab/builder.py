"""From proposals to the rewordings of a file: filter, write to a journal, choose.

A query's proposals are filtered one query at a time, into a journal that a stopped build continues. When every query
is there, ``choose`` takes some of each, so that no new word serves too often.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from hero_plugin.integrations.data.records import Record, Rewording
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.filters import Checks, first_reason
from hero_plugin.integrations.tools.vocab.grammar import TaggedQuery, make_query
from hero_plugin.integrations.tools.vocab.sources import Source
from hero_plugin.integrations.tools.vocab.swaps import Swap, combine


@dataclass
class Builder:
    """A source, and the filters that its proposals must pass.

    Attributes:
        source: What proposes.
        checks: What judges.
        max_changes: Swaps that pass are combined, up to this many in one rewording.
    """

    source: Source
    checks: Checks
    max_changes: int = 1

    def run(
        self,
        records: Sequence[Record],
        journal: BuildJournal,
        stop: Callable[[], bool],
        progress: Callable[[int, int], None],
    ) -> bool:
        """Add to the journal the queries that it lacks; return False if ``stop`` ended that early."""
        by_video: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_video[record.video_id].append(record)
        todo = islice(records, journal.done, None)
        queries = (make_query(record, by_video[record.video_id], self.checks.tagger) for record in todo)
        for query, proposals in self._proposals(queries, stop):
            journal.add(*self._passing(query, proposals))
            progress(journal.done, len(records))
            if stop():
                break
        return journal.done == len(records)

    def _proposals(
        self, queries: Iterator[TaggedQuery], stop: Callable[[], bool]
    ) -> Iterator[tuple[TaggedQuery, list[Rewording]]]:
        """Iterate over queries with their proposals, in order; a slow source gets several queries at once."""

        def propose(query: TaggedQuery) -> list[Rewording]:
            return list(self.source.propose(query))

        jobs = getattr(self.source, "jobs", 1)
        if jobs == 1:
            yield from ((query, propose(query)) for query in queries)
            return
        waiting: deque[tuple[TaggedQuery, Future[list[Rewording]]]] = deque()
        with ThreadPoolExecutor(jobs) as pool:
            waiting.extend((query, pool.submit(propose, query)) for query in islice(queries, jobs))
            while waiting and not stop():
                waiting.extend((query, pool.submit(propose, query)) for query in islice(queries, 1))
                query, answer = waiting.popleft()
                yield query, answer.result()

    def _passing(self, query: TaggedQuery, proposals: Sequence[Rewording]) -> tuple[list[Rewording], Counter[str]]:
        """Return the rewordings that pass every filter, each once, and how many each filter turned down."""
        counts: Counter[str] = Counter(proposed=len(proposals))
        kept: dict[str, Rewording] = {}
        swaps: list[Swap] = []
        for proposal in proposals:
            turned_down = first_reason(self.checks.filters, query, proposal)
            if turned_down is not None:
                counts[turned_down[0]] += 1
                continue
            if proposal.sentence.lower() in kept:
                counts["duplicate"] += 1
                continue
            if isinstance(proposal, Swap):
                cosine = self.checks.similarity.cosine(proposal)
                change = replace(proposal.changes[0], similarity=None if cosine is None else round(cosine, 3))
                proposal = replace(proposal, changes=(change,))
                swaps.append(proposal)
            kept[proposal.sentence.lower()] = self._finished(proposal)
        for combination in combine(query, swaps, self.max_changes):
            if self.checks.collision.reason(query, combination) is None:
                kept.setdefault(combination.sentence.lower(), self._finished(combination))
        return list(kept.values()), counts

    def _finished(self, rewording: Rewording) -> Rewording:
        words = self.checks.unseen.words(rewording.sentence)
        return Rewording(rewording.sentence, rewording.changes, words, rewording.source)


class BuildJournal:
    """JSON lines of what passed, one per query, in order. The first line says what build it belongs to.

    Kept by hand: SQLite would need the same checks of the build and of the order.
    """

    def __init__(self, path: Path, fingerprint: str, resume: bool) -> None:
        self.path = path
        whole = b""
        if path.exists():
            if not resume:
                raise UserError(f"{path} is what a stopped build left: continue it with --resume, or delete it")
            raw = path.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1]
            if whole and json.loads(whole.partition(b"\n")[0]).get("build") != fingerprint:
                raise UserError(f"{path} belongs to a build of other files or settings: use those, or delete it")
            if len(whole) < len(raw):  # a last line that was cut off
                path.write_bytes(whole)
        self.done = max(whole.count(b"\n") - 1, 0)
        self._stream = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
        if not whole:
            self._stream.write(json.dumps({"build": fingerprint}) + "\n")

    def add(self, passed: Sequence[Rewording], counts: Counter[str]) -> None:
        """Add what passed for the next query."""
        row = {"passed": [rewording.to_json() for rewording in passed], "counts": dict(sorted(counts.items()))}
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.done += 1
        if self.done % 50 == 0:
            self._stream.flush()

    def rows(self) -> Iterator[tuple[list[Rewording], Counter[str]]]:
        """Iterate over queries: what passed, and the counts."""
        self._stream.flush()
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


_FEW = 3
"""Times that a word may serve in the smallest of files."""


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
        chosen, counts, uses = _choose(records, passed, limits, seed, most)
        allowed = max(_FEW, int(limits.word_share * sum(map(len, chosen))))
        if uses <= allowed:
            return chosen, counts
        most = min(most - 1, max(allowed, uses - max(1, (uses - allowed) // 2)))


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
    order = sorted(range(len(records)), key=lambda index: draw(seed, records[index].query_id))

    def rank(query: str, rewording: Rewording) -> tuple[int, bytes]:
        served = max((uses[word] for word in rewording.unseen), default=0)
        return served, draw(seed, f"{query} {rewording.sentence}")

    for number in range(1, limits.max_changes + 1):
        for index in order:
            record = records[index]
            some = [each for each in passed[index] if min(len(each.changes), limits.max_changes) == number]
            kept = 0
            for rewording in sorted(some, key=partial(rank, record.query_id)):
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


def draw(seed: int, text: str) -> bytes:
    """Return a text's lot: sorted by it, texts are in an order that the seed alone decides."""
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()
