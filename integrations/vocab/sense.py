"""Filter by sense: whether a new word means what the old one means in its query."""

from __future__ import annotations

from typing import Any

from hero_plugin.integrations.vocab.meaning import SenseJudge
from hero_plugin.integrations.vocab.query import TaggedQuery
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.vocab.swaps import Swap

__all__ = ["SenseFilter"]

_VAGUER = 0.1
"""So much surer must the sense of a verb be than that of a noun."""


class SenseFilter:
    """Turn down words without a shared sense that is likely for both, in this query and in general."""

    name = "sense"

    def __init__(self, judge: SenseJudge | None, chance: float = 0.5, own: float = 0.45, ranks: int = 1) -> None:
        self._judge, self._chance, self._own, self._ranks = judge, chance, own, ranks

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if not isinstance(rewording, Swap) or rewording.curated:
            return None
        if self._judge is None:
            return None if rewording.rank < self._ranks else "not the commonest sense"
        chance, own = self.chances(query, rewording)
        if chance < self._chance + (_VAGUER if rewording.pos == "v" else 0.0):
            return f"{rewording.base} hardly means {rewording.new_base} here"
        return None if own >= self._own else f"{rewording.new_base} mostly means something else"

    def chances(self, query: TaggedQuery, swap: Swap) -> tuple[float, float]:
        """Return how likely the old word has the shared sense here, and how often the new word has it."""
        assert self._judge is not None
        net = self._judge.wordnet
        new = net.senses(swap.new_base, swap.pos)
        shares = dict(zip((s.offset() for s in new), net.shares(swap.new_base, swap.pos), strict=True))
        best = (0.0, 0.0)
        old = net.senses(swap.base, swap.pos)
        chances = self._judge.chances(query, query.words[swap.place], swap.base, swap.pos)
        for sense, chance in zip(old, chances, strict=True):
            shared = [sense] if swap.relation == "synonym" else sense.hypernyms()
            own = max((shares.get(s.offset(), 0.0) for s in shared), default=0.0)
            if own and chance > best[0]:
                best = (chance, own)
        return best

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        if self._judge is None:
            return {"commonest_senses": self._ranks}
        return {"chance_in_context": self._chance, "more_for_verbs": _VAGUER, "share_of_new_word": self._own}
