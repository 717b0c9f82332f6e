"""Counts of words one and two places apart in training sentences: they tell which known word fits a place."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

Pairs = Mapping[str, Mapping[str, int]]
"""How often a second word followed a first, by the first."""

DISTANCES = (1, 2)
BOUND = ""
"""Stands before a sentence's first word and after its last."""
FEW = 10.0
"""What a count has to exceed, roughly, to say something; chosen on val's rewordings."""


class Contexts:
    """Counts of words in sentences: ``following`` says, by distance, how often a second word followed a first."""

    def __init__(self, following: Mapping[int, Pairs]) -> None:
        self.following = following

    @cached_property
    def _preceding(self) -> dict[int, dict[str, dict[str, int]]]:
        """The same by the second word; only the bridge asks."""
        turned: dict[int, dict[str, dict[str, int]]] = {}
        for distance, pairs in self.following.items():
            by_second = turned[distance] = defaultdict(dict)
            for first, counts in pairs.items():
                for second, count in counts.items():
                    by_second[second][first] = count
        return turned

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]], earlier: "Contexts | None" = None) -> "Contexts":
        """Count tokenized sentences, on top of ``earlier`` ones."""
        known: Mapping[int, Pairs] = earlier.following if earlier else {}
        found: dict[int, dict[str, Counter[str]]] = {distance: defaultdict(Counter) for distance in DISTANCES}
        for distance, pairs in known.items():
            for first, counts in pairs.items():
                found[distance][first].update(counts)
        for sentence in sentences:
            bounded = (BOUND, *sentence, BOUND)
            for distance, after in found.items():
                for first, second in zip(bounded, bounded[distance:], strict=False):
                    after[first][second] += 1
        return cls(
            {distance: {first: dict(counts) for first, counts in after.items()} for distance, after in found.items()}
        )

    def __bool__(self) -> bool:
        return any(self.following.values())

    def expected(self, sentence: Sequence[str], place: int, counts: Mapping[str, int]) -> dict[str, float]:
        """Return how much more than by its count each word is expected at a place, as a logarithm.

        It is ``1/2 sum log(1 + c N / (10 n))`` over the up to four neighbours of the place, with ``c`` how often the
        word stood so beside that neighbour, ``n`` how often it was said at all, and ``N`` all words. The half is for
        neighbours that are not independent of each other. Words that stood beside none have 0, and are left out.

        The word at ``place`` is not looked at. ``counts`` say how often training said each word that may be expected.
        """
        total = sum(counts.values())
        found: defaultdict[str, float] = defaultdict(float)
        for beside in self._beside(sentence, place):
            for word, count in beside.items():
                if word in counts:
                    found[word] += math.log1p(count * total / (FEW * counts[word])) / 2
        return dict(found)

    def _beside(self, sentence: Sequence[str], place: int) -> Iterator[Mapping[str, int]]:
        """Yield what stood, and how often, where the place is from each of its neighbours."""
        bounded, here = (BOUND, *sentence, BOUND), place + 1
        for distance in DISTANCES:
            if here >= distance:
                yield self.following.get(distance, {}).get(bounded[here - distance], {})
            if here + distance < len(bounded):
                yield self._preceding.get(distance, {}).get(bounded[here + distance], {})

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {str(distance): pairs for distance, pairs in self.following.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Contexts":
        """Return the counts that ``to_json`` described."""
        return cls({int(distance): pairs for distance, pairs in value.items()})
