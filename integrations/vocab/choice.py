"""Choice among the rewordings that pass: some of each query, no word too often."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.words import tokenize

__all__ = ["ChoiceLimits", "choose"]


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
