"""Filters by word vectors: near to the original, and to no other moment's query."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from hero_plugin.integrations.data.records import Rewording
from hero_plugin.integrations.data.words import Tokenizer, tokenize
from hero_plugin.integrations.scoring.open_vocabulary import unseen_words
from hero_plugin.integrations.tools.vocab.english import FIXED_VERBS, NEVER_SWAPPED, PARTICLES, TaggedQuery, zipf
from hero_plugin.integrations.tools.vocab.meaning import SenseJudge, WordNet, WordSimilarity, content
from hero_plugin.integrations.tools.vocab.swaps import Swap

# Filters that a rewording must pass, and the two about its words.


class Filter(Protocol):
    """A test that a rewording must pass.

    Attributes:
        name: under which the manifest counts it.
    """

    name: str

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""


class UnseenFilter:
    """Turn down changes that bring no word which training lacks: the result is open-vocabulary by construction."""

    name = "unseen"

    def __init__(self, vocabulary: Collection[str], tokenizer: Tokenizer) -> None:
        self._vocabulary, self._tokenizer = vocabulary, tokenizer

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if isinstance(rewording, Swap):
            new = self._tokenizer(rewording.changes[0].new)
            return None if unseen_words(new, self._vocabulary) else "the new word is in the training vocabulary"
        before = set(self._tokenizer(query.sentence))
        new = [word for word in self.words(rewording.sentence) if word not in before]
        return None if new else "no new word that the training vocabulary lacks"

    def words(self, sentence: str) -> tuple[str, ...]:
        """Return the unseen words of a sentence."""
        return unseen_words(self._tokenizer(sentence), self._vocabulary)

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"training_words": len(self._vocabulary)}


class KnownWordsFilter:
    """Turn down new words that people hardly use."""

    name = "known words"

    def __init__(self, frequency: float = 2.5) -> None:
        self._frequency = frequency

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if isinstance(rewording, Swap) and rewording.curated:
            return None
        old = set(query.words)
        for change in rewording.changes:
            for word in tokenize(change.new):
                if word not in old and zipf(word) < self._frequency:
                    return f"{word} is too rare or no word"
        return None

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"zipf_frequency": self._frequency}


def first_reason(filters: Sequence[Filter], query: TaggedQuery, rewording: Rewording) -> tuple[str, str] | None:
    """Return the name of the first filter that turns a rewording down, and why; None if all let it pass."""
    for each in filters:
        reason = each.reason(query, rewording)
        if reason is not None:
            return each.name, reason
    return None


class SimilarityFilter:
    """Turn down new words that word vectors call another meaning, or that do not fit the context.

    Args:
        meaning: the word vectors.
        context: returns the vector of a query without one word.
        word: least cosine of a word and its synonym.
        rarer: added to that for a sense that is not the most common.
        hypernym: least cosine of a word and its hypernym.
        fit: how much worse than the old word the new one may fit the context.
        sentence: least cosine of a sentence and its paraphrase.
    """

    name = "similarity"

    def __init__(
        self,
        meaning: WordSimilarity,
        context: Callable[[TaggedQuery, str], Any],
        *,
        word: float = 0.61,
        rarer: float = 0.07,
        hypernym: float = 0.65,
        fit: float = 0.2,
        sentence: float = 0.8,
    ) -> None:
        self._meaning, self._context = meaning, context
        self._word, self._hypernym, self._fit, self._sentence = word, hypernym, fit, sentence
        self._rarer = rarer

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if not isinstance(rewording, Swap):
            near = self._meaning.sentence_similarity(content(query.words), content(tokenize(rewording.sentence)))
            return None if near is not None and near >= self._sentence else f"another sentence ({_shown(near)})"
        if rewording.curated:
            blind = [word for word in tokenize(rewording.changes[0].new) if not self._meaning.knows(word)]
            return f"no vector for {', '.join(blind)}" if blind else None
        near = self.of(rewording)
        least = self._word if rewording.relation == "synonym" else self._hypernym
        if near is None or near < least + (self._rarer if rewording.rank else 0.0):
            return f"the words are not close ({_shown(near)})"
        context = self._context(query, query.words[rewording.place])
        if context is not None and (old := self._meaning.mean([rewording.base])) is not None:
            new = self._meaning.mean(rewording.new_base.split())
            if new is not None and float(context @ new) < float(context @ old) - self._fit:
                return "does not fit the context"
        return None

    def of(self, swap: Swap) -> float | None:
        """Return the cosine of the two words, as they stand or as lemmas, whichever is closer."""
        pairs = ((swap.base, swap.new_base), (swap.changes[0].old.lower(), swap.changes[0].new))
        return max((near for pair in pairs if (near := self._meaning.similarity(*pair)) is not None), default=None)

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {
            "synonym": self._word,
            "rarer_sense": self._rarer,
            "hypernym": self._hypernym,
            "context": self._fit,
            "sentence": self._sentence,
        }


def _shown(value: float | None) -> str:
    return "no vector" if value is None else f"{value:.2f}"


class CollisionFilter:
    """Turn down wordings that describe another moment of the video: too close to another query's words."""

    name = "collision"

    def __init__(self, meaning: WordSimilarity) -> None:
        self._meaning = meaning

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        words = tokenize(rewording.sentence)
        own = self._meaning.sentence_similarity(content(query.words), content(words)) or 0.0
        for other in query.siblings:
            if other.moments == query.record.moments:
                continue
            theirs = tokenize(other.sentence)
            if set(theirs) == set(words):
                return "another moment's query says the same"
            if theirs != list(query.words):
                near = self._meaning.sentence_similarity(content(theirs), content(words))
                if near is not None and near > own:
                    return "nearer to another moment's query"
        return None

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {}


# Filter by sense: whether a new word means what the old one means in its query.


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


# Filter that protects words of a query which no thesaurus should touch.


_ENDS = ("ing", "ish", "y", "fall", "line", "er", "ation")


class ProtectedFilter:
    """Turn down swaps of light verbs, parts of fixed expressions, names, and verbs with a particle."""

    name = "protected"

    def __init__(self, wordnet: WordNet | None) -> None:
        self._wordnet = wordnet

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if not isinstance(rewording, Swap) or rewording.curated:
            return None
        place, word = rewording.place, query.words[rewording.place]
        if rewording.base in NEVER_SWAPPED or (rewording.pos == "v" and rewording.base in FIXED_VERBS):
            return "a word of too many meanings"
        if _made_from(rewording.base, rewording.new_base):
            return "made from the old word"
        others = [each for each in query.words if each != word and len(each) > 3]
        if any(each.startswith(rewording.new_base) or rewording.new_base.startswith(each) for each in others):
            return "says a word twice"
        if place and query.sentence[query.spans[place][0]].isupper():
            return "a name"
        if rewording.pos == "v" and (particle := self._particle(query, place, rewording.base)):
            return f"goes with {particle}"
        if self._wordnet is not None and (phrase := self._phrase(query, place, word, rewording.base)):
            return f"part of {phrase}"
        return None

    def _particle(self, query: TaggedQuery, place: int, base: str) -> str | None:
        """Return a particle that the verb may belong with: "picks the phone up"."""
        for distance, word in enumerate(query.words[place + 1 : place + 7], 1):
            if word in PARTICLES and (
                distance == 1 or self._wordnet is None or self._wordnet.knows(f"{base} {word}", "v")
            ):
                return word
            if query.tags[place + distance][:2] in ("VB", "CC", "AU"):
                return None
        return None

    def _phrase(self, query: TaggedQuery, place: int, word: str, base: str) -> str | None:
        """Return an expression of WordNet, two to four words long, that includes this word."""
        assert self._wordnet is not None
        for length in (4, 3, 2):
            for start in range(max(0, place - length + 1), min(place, len(query.words) - length) + 1):
                words = list(query.words[start : start + length])
                phrases = {" ".join(words), " ".join((*words[:-1], base if start + length - 1 == place else words[-1]))}
                phrases.add(" ".join(base if start + k == place else w for k, w in enumerate(words)))
                for phrase in sorted(phrases):
                    if self._wordnet.knows(phrase) or self._wordnet.knows(phrase.replace(" ", "-")):
                        return phrase
        return None

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"expressions": self._wordnet is not None}


def _made_from(old: str, new: str) -> bool:
    """Return whether one word is made from the other, and so rarely means the same: floor, flooring; red, reddish."""
    if new.endswith("ish") and not old.endswith("ish"):
        return True
    return old in new.split() or (new.startswith(old) and new.endswith(_ENDS))
