"""Open vocabulary: the words of test queries that no training query has.

A query's category set is the set of its words. A query is open-vocabulary when at least one of them is not in the
training vocabulary, the union of the training queries' category sets.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field


def training_vocabulary(queries: Iterable[Iterable[str]]) -> frozenset[str]:
    """Return the union of the category sets of training queries, each given as its words."""
    return frozenset(word for query in queries for word in query)


def unseen_words(words: Iterable[str], vocabulary: Collection[str]) -> tuple[str, ...]:
    """Return the words of a query that are not in ``vocabulary``, each once, in the query's order.

    >>> unseen_words(["human", "opens", "crate"], {"person", "opens", "box"})
    ('human', 'crate')
    """
    return tuple(word for word in dict.fromkeys(words) if word not in vocabulary)


EXAMPLES = 3
"""Queries that are kept per unseen word."""


@dataclass(frozen=True)
class UnseenWord:
    """A word of the test queries that training never had."""

    word: str
    count: int
    """How often it is said."""
    queries: int
    """How many queries say it."""
    examples: tuple[int, ...]
    """Indices of the first of these queries."""


@dataclass(frozen=True)
class Drift:
    """How test queries relate to a training vocabulary."""

    queries: int
    words: int
    """Distinct words of the test queries."""
    tokens: int
    """Words said in all test queries."""
    unseen: tuple[tuple[str, ...], ...] = field(repr=False)
    """Per query: its unseen words."""
    ranking: tuple[UnseenWord, ...] = field(repr=False)
    """The unseen words, the most frequent first."""

    @property
    def seen_only(self) -> int:
        """Return the number of queries of seen words alone."""
        return sum(not words for words in self.unseen)

    @property
    def seen_share(self) -> float:
        """Return the share of queries of seen words alone, in percent."""
        return 100 * self.seen_only / self.queries

    @property
    def unseen_tokens(self) -> int:
        """Return how often unseen words occur."""
        return sum(word.count for word in self.ranking)

    def by_number(self) -> dict[int, int]:
        """Return {number of unseen words: queries with that many}, ascending."""
        counts = Counter(len(words) for words in self.unseen)
        return {number: counts[number] for number in sorted(counts)}


def measure_drift(queries: Iterable[Sequence[str]], vocabulary: Collection[str]) -> Drift:
    """Compare test queries, each given as its words, with a training vocabulary; ``ValueError`` without queries."""
    said: Counter[str] = Counter()
    places: dict[str, list[int]] = {}
    unseen: list[tuple[str, ...]] = []
    for index, words in enumerate(queries):
        said.update(words)
        unseen.append(unseen_words(words, vocabulary))
        for word in unseen[-1]:
            places.setdefault(word, []).append(index)
    if not unseen:
        raise ValueError("no test queries to compare with the vocabulary")
    ranking = [UnseenWord(word, said[word], len(at), tuple(at[:EXAMPLES])) for word, at in places.items()]
    ranking.sort(key=lambda word: (-word.queries, -word.count, word.word))
    return Drift(len(unseen), len(said), said.total(), tuple(unseen), tuple(ranking))
