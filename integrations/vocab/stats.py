"""Drift of test queries: words that training never had, and in how many queries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab.tagging import Tagger, coarse
from hero_plugin.integrations.vocab.tokenizers import Tokenizer
from hero_plugin.open_vocabulary import Drift, measure_drift, training_vocabulary

__all__ = ["TestSet", "drift_table", "measure", "sensitivity_table", "to_json", "words_table"]


@dataclass(frozen=True)
class TestSet:
    """One test file compared with the training vocabulary."""

    __test__ = False  # pytest: not a test

    name: str
    records: Sequence[Record]
    drift: Drift
    pos: Mapping[str, str]
    """Unseen word -> noun, verb, adjective, adverb or other; empty where nothing tags."""

    def by_pos(self) -> dict[str, tuple[int, int]]:
        """Return {part of speech: (unseen words, their occurrences)}."""
        found: dict[str, list[int]] = defaultdict(list)
        for word in self.drift.ranking:
            found[self.pos.get(word.word, "not tagged")].append(word.count)
        return {pos: (len(counts), sum(counts)) for pos, counts in sorted(found.items(), key=lambda i: -len(i[1]))}

    def example(self, index: int) -> str:
        """Return the sentence of a query by its index."""
        return self.records[index].sentence


def measure(
    train: Sequence[Record],
    tests: Mapping[str, Sequence[Record]],
    tokenizer: Tokenizer,
    tagger: Tagger | None = None,
    examples: int = 3,
) -> tuple[frozenset[str], list[TestSet]]:
    """Return the training vocabulary, and each test set compared with it."""
    vocabulary = training_vocabulary(tokenizer(record.sentence) for record in train)
    found = []
    for name, records in tests.items():
        drift = measure_drift((tokenizer(record.sentence) for record in records), vocabulary, examples)
        found.append(TestSet(name, records, drift, _tags(records, drift, tokenizer, tagger) if tagger else {}))
    return vocabulary, found


def _tags(records: Sequence[Record], drift: Drift, tokenizer: Tokenizer, tagger: Tagger) -> dict[str, str]:
    """Return the part of speech that each unseen word most often has."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for record, unseen in zip(records, drift.unseen, strict=True):
        if unseen:
            words = tokenizer(record.sentence)
            for word, tag in zip(words, tagger.tag(words), strict=True):
                if word in unseen:
                    votes[word][coarse(tag)] += 1
    return {word: counts.most_common(1)[0][0] for word, counts in votes.items()}


def drift_table(vocabulary: frozenset[str], tests: Sequence[TestSet]) -> Table:
    """Return a table with one row per test set."""
    table = Table(title=f"training vocabulary: {len(vocabulary):,} words", title_justify="left")
    for name in ("test", "queries", "words", "only seen words", "share %", "1 unseen", "2+ unseen", "unseen words"):
        table.add_column(name, justify="left" if name == "test" else "right", no_wrap=name != "test")
    for test in tests:
        drift, numbers = test.drift, test.drift.by_number()
        table.add_row(
            test.name,
            f"{drift.queries:,}",
            f"{drift.words:,}",
            f"{drift.seen_only:,}",
            f"{drift.seen_share:.2f}",
            f"{numbers.get(1, 0):,}",
            f"{sum(count for number, count in numbers.items() if number > 1):,}",
            f"{len(drift.ranking):,}",
        )
    return table


def words_table(test: TestSet, top: int) -> Table:
    """Return a table of the most frequent unseen words of a test set, with a query for each."""
    kinds = ", ".join(f"{words} {pos}{'s' if pos in ('noun', 'verb', 'adjective', 'adverb') and words != 1 else ''}"
                      for pos, (words, _) in test.by_pos().items())  # fmt: skip
    table = Table(title=f"{test.name}: {len(test.drift.ranking):,} unseen words ({kinds})", title_justify="left")
    table.add_column("word", no_wrap=True)
    table.add_column("part of speech", no_wrap=True)
    table.add_column("said", justify="right")
    table.add_column("queries", justify="right")
    table.add_column("for example")
    for word in test.drift.ranking[:top]:
        pos = test.pos.get(word.word, "-")
        table.add_row(word.word, pos, str(word.count), str(word.queries), test.example(word.examples[0]))
    return table


def sensitivity_table(rows: Sequence[tuple[str, str, frozenset[str], Sequence[TestSet]]]) -> Table:
    """Return a table of the same figures per tokenizer.

    Args:
        rows: (tokenizer, what it does, training vocabulary, test sets).
    """
    table = Table("tokenizer", "a word is", title="the share of queries with only seen words, %", title_justify="left")
    table.add_column("training words", justify="right")
    for test in rows[0][3]:
        table.add_column(test.name, justify="right")
    for name, what, vocabulary, tests in rows:
        table.add_row(name, what, f"{len(vocabulary):,}", *(f"{test.drift.seen_share:.2f}" for test in tests))
    return table


def to_json(vocabulary: frozenset[str], tests: Sequence[TestSet], tokenizer: str, tagger: str | None) -> dict[str, Any]:
    """Return everything as plain values; ``unseen_by_query`` lists each query that has unseen words."""
    return {
        "tokenizer": tokenizer,
        "tagger": tagger,
        "training_words": len(vocabulary),
        "tests": {test.name: _test_json(test) for test in tests},
    }


def _test_json(test: TestSet) -> dict[str, Any]:
    drift = test.drift
    return {
        "queries": drift.queries,
        "words": drift.words,
        "tokens": drift.tokens,
        "unseen_tokens": drift.unseen_tokens,
        "seen_only": drift.seen_only,
        "seen_share": drift.seen_share,
        "queries_by_unseen_words": {str(number): count for number, count in drift.by_number().items()},
        "unseen_by_pos": {pos: {"words": words, "said": said} for pos, (words, said) in test.by_pos().items()},
        "unseen_words": [
            {
                "word": word.word,
                "pos": test.pos.get(word.word),
                "count": word.count,
                "queries": word.queries,
                "examples": [test.example(index) for index in word.examples],
            }
            for word in drift.ranking
        ],
        "unseen_by_query": {
            record.query_id: list(words) for record, words in zip(test.records, drift.unseen, strict=True) if words
        },
    }
