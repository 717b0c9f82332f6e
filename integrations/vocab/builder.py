"""Builder of rewordings: propose, filter, write to the journal."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab.filters import Filter, UnseenFilter, first_reason
from hero_plugin.integrations.vocab.journal import BuildJournal
from hero_plugin.integrations.vocab.nearness import CollisionFilter, SimilarityFilter
from hero_plugin.integrations.vocab.query import TaggedQuery, make_query
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.vocab.sources import Source
from hero_plugin.integrations.vocab.swaps import Swap, combine
from hero_plugin.integrations.vocab.tagging import Tagger

__all__ = ["Builder"]


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
