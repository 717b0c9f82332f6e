"""What a rewording must pass. Each filter says why it turns one down, or None."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from hero_plugin.integrations.vocab.english import forms, is_mass, zipf
from hero_plugin.integrations.vocab.meaning import Meaning, SenseJudge, content
from hero_plugin.integrations.vocab.query import Query
from hero_plugin.integrations.vocab.rewording import Rewording
from hero_plugin.integrations.vocab.stop_words import FIXED_VERBS, NEVER_SWAPPED, PARTICLES
from hero_plugin.integrations.vocab.swaps import SOMEBODY, Swap
from hero_plugin.integrations.vocab.tokenizers import Tokenizer
from hero_plugin.integrations.vocab.wordnet import WordNet
from hero_plugin.integrations.words import tokenize
from hero_plugin.open_vocabulary import unseen_words

__all__ = ["Agreement", "Collision", "Filter", "KnownWords", "Protected", "Sense", "Similarity", "Unseen"]


class Filter(Protocol):
    """name: as the manifest counts it."""

    name: str

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        """Why not, in a few words; None lets the rewording pass."""

    def describe(self) -> dict[str, Any]:
        """Its settings, for the manifest."""


class Unseen:
    """Open-vocabulary by construction: each change brings a word that training never had."""

    name = "unseen"

    def __init__(self, vocabulary: Collection[str], tokenizer: Tokenizer) -> None:
        self._vocabulary, self._tokenizer = vocabulary, tokenizer

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        if isinstance(rewording, Swap):
            new = self._tokenizer(rewording.changes[0].new)
            return None if unseen_words(new, self._vocabulary) else "the new word is in the training vocabulary"
        before = set(self._tokenizer(query.sentence))
        new = [word for word in self.words(rewording.sentence) if word not in before]
        return None if new else "no new word that the training vocabulary lacks"

    def words(self, sentence: str) -> tuple[str, ...]:
        """The unseen words of a sentence."""
        return unseen_words(self._tokenizer(sentence), self._vocabulary)

    def describe(self) -> dict[str, Any]:
        return {"training_words": len(self._vocabulary)}


class KnownWords:
    """New words are words that people use."""

    name = "known words"

    def __init__(self, frequency: float = 2.5) -> None:
        self._frequency = frequency

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        old = set(query.words)
        for change in rewording.changes:
            for word in tokenize(change.new):
                if word not in old and zipf(word) < self._frequency:
                    return f"{word} is too rare or no word"
        return None

    def describe(self) -> dict[str, Any]:
        return {"zipf_frequency": self._frequency}


class Protected:
    """Words that are not swapped: light verbs, parts of fixed expressions, names, verbs with a particle."""

    name = "protected"

    def __init__(self, wordnet: WordNet | None) -> None:
        self._wordnet = wordnet

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        if not isinstance(rewording, Swap):
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

    def _particle(self, query: Query, place: int, base: str) -> str | None:
        """A particle that the verb may belong with: "picks the phone up"."""
        for distance, word in enumerate(query.words[place + 1 : place + 7], 1):
            if word in PARTICLES and (
                distance == 1 or self._wordnet is None or self._wordnet.knows(f"{base} {word}", "v")
            ):
                return word
            if query.tags[place + distance][:2] in ("VB", "CC", "AU"):
                return None
        return None

    def _phrase(self, query: Query, place: int, word: str, base: str) -> str | None:
        """An expression of WordNet, two to four words long, that runs over this word."""
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
        return {"expressions": self._wordnet is not None}


_ENDS = ("ing", "ish", "y", "fall", "line", "er", "ation")


def _made_from(old: str, new: str) -> bool:
    """red and reddish, floor and flooring, tennis and lawn tennis: near, but rarely the same thing."""
    if new.endswith("ish") and not old.endswith("ish"):
        return True
    return old in new.split() or (new.startswith(old) and new.endswith(_ENDS))


_TO_VERB, _ING = frozenset({26, 28, 29, 32, 35}), frozenset({33})
_NO_OBJECT = frozenset({1, 2, 3, 4, 6, 7, 12, 13, 22, 23, 27})
_OBJECT = frozenset({8, 9, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 30, 31})
_COUNTED = frozenset(("these", "those", "many", "several", "few", "both", "two", "three", "four", "five", "six"))
_ONE = frozenset(("a", "an", "one", "another", "each", "every"))
_PLURAL_NEXT = frozenset(("are", "were", "have", "do", "that", "which", "who", "themselves"))


class Agreement:
    """Number, verb form, article, and what a verb takes after it."""

    name = "agreement"

    def __init__(self, wordnet: WordNet | None) -> None:
        self._wordnet = wordnet

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        if not isinstance(rewording, Swap):
            return _forms_differ(query, rewording)
        new = rewording.changes[0].new
        if new in SOMEBODY:
            return self._pronoun(query, rewording)
        tag = "VB" if rewording.tag == "VBP" else rewording.tag
        if not _is_form(new, "NN" if new == rewording.new_base and tag == "NNS" and is_mass(new) else tag):
            return f"{new} is no {rewording.tag} form"
        if rewording.pos == "n":
            return self._noun(query, rewording, new)
        return self._verb(query, rewording) if rewording.pos == "v" else None

    @staticmethod
    def _pronoun(query: Query, swap: Swap) -> str | None:
        if swap.tag != "NN" or query.words[swap.place] != swap.base:
            return "a pronoun for a plural"
        before = query.tags[swap.place - 1] if swap.place else ""
        article = swap.place and query.words[swap.place - 1] in ("a", "an")
        if not article and before[:2] in ("DT", "PR", "JJ", "CD", "NN"):
            return "a pronoun after a determiner or an adjective"
        after = query.tags[swap.place + 1] if swap.place + 1 < len(query.tags) else ""
        return "a pronoun before a noun or a pronoun" if after[:2] in ("NN", "PR") else None

    @staticmethod
    def _noun(query: Query, swap: Swap, new: str) -> str | None:
        place, head = swap.place, new.split()[-1]
        phrase = []  # from the determiner to the noun
        for back in range(place - 1, max(-1, place - 4), -1):
            phrase.append(query.words[back])
            if query.tags[back] not in ("JJ", "NN", "CD", "VBN", "VBG"):
                break
        after = query.words[place + 1] if place + 1 < len(query.words) else ""
        was_mass = swap.tag == "NN" and is_mass(swap.base)
        if swap.tag == "NNS" and new == swap.new_base:  # a plural became a word that is not counted
            later = set(query.words[place + 1 :])
            if after in _PLURAL_NEXT or _COUNTED & set(phrase) or {"they", "them"} & later:
                return f"{new} is not a plural"
        elif swap.tag == "NN" and is_mass(head) and not was_mass and _ONE & set(phrase):
            return f"{new} takes no article"
        elif (
            swap.tag == "NN"
            and not is_mass(head)
            and was_mass
            and not ({"DT", "PRP$"} & set(query.tags[max(0, place - 3) : place]))
        ):
            return f"{new} needs an article"
        if after and not _sentence_break(query, place):
            bare = swap.tag == "NN" and query.tags[place + 1] in ("VB", "VBP") and "NN" in forms(after)
            if bare or query.tags[place + 1] in ("NN", "NNS", "?"):  # "car wash": no verb, or it would be "washes"
                return "part of a compound"
        if place and query.tags[place - 1] in ("NN", "NNS") and not _sentence_break(query, place - 1):
            return "part of a compound"
        return None

    def _verb(self, query: Query, swap: Swap) -> str | None:
        if self._wordnet is None:
            return None
        senses = self._wordnet.senses(swap.new_base, "v")
        frames = frozenset().union(*(self._wordnet.frames(sense, swap.new_base) for sense in senses[:2]))
        after = query.tags[swap.place + 1] if swap.place + 1 < len(query.tags) else ""
        passive = swap.tag == "VBN" and swap.place and query.tags[swap.place - 1] == "AUX"
        if after == "TO" and query.tags[min(swap.place + 2, len(query.tags) - 1)] in ("VB", "VBP", "?"):
            needed = _TO_VERB
        elif after == "VBG":
            needed = _ING | _TO_VERB | _OBJECT
        elif after in ("DT", "PRP$", "PRP", "NN", "NNS", "JJ", "CD") or passive:
            needed = _OBJECT
        else:
            needed = _NO_OBJECT
        return None if frames & needed else f"{swap.new_base} is not used with what follows"

    def describe(self) -> dict[str, Any]:
        return {"verb_frames": self._wordnet is not None}


def _is_form(word: str, tag: str) -> bool:
    known = forms(word.split()[-1])
    return tag in known or (tag == "JJ" and bool(known & {"JJ", "JJR"}))


def _sentence_break(query: Query, place: int) -> bool:
    return any(mark in query.sentence[query.spans[place][1] : query.spans[place + 1][0]] for mark in ".,;:!?")


def _forms_differ(query: Query, rewording: Rewording) -> str | None:
    """For free rewordings: a word put in the place of one word must be able to be of the same form."""
    for change in rewording.changes:
        old, new = tokenize(change.old), tokenize(change.new)
        if len(old) == len(new) == 1 and old[0] in query.words:
            tag = query.tags[query.words.index(old[0])]
            if tag in ("NNS", "VBZ", "VBG", "VBD", "VBN") and (known := forms(new[0])) and tag not in known:
                return f"{new[0]} is no {tag} form, as {old[0]} is"
    for article, following in zip(words := tokenize(rewording.sentence), words[1:], strict=False):
        if article in ("a", "an") and "VBZ" in forms(following) and not forms(following) & {"NN", "JJ", "VBN", "VBG"}:
            return f"{article} {following}"
        if article in ("a", "an") and (article == "an") != (following[0] in "aeiou") and following[0] not in "uhoe8x1":
            return f"{article} {following}"
    return None


_VAGUER = 0.1
"""So much surer must the sense of a verb be than that of a noun."""


class Sense:
    """The new word means what the old one means here: both have the shared sense, and it is the likely one of both."""

    name = "sense"

    def __init__(self, judge: SenseJudge | None, chance: float = 0.5, own: float = 0.45, ranks: int = 1) -> None:
        self._judge, self._chance, self._own, self._ranks = judge, chance, own, ranks

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        if not isinstance(rewording, Swap):
            return None
        if self._judge is None:
            return None if rewording.rank < self._ranks else "not the commonest sense"
        chance, own = self.chances(query, rewording)
        if chance < self._chance + (_VAGUER if rewording.pos == "v" else 0.0):
            return f"{rewording.base} hardly means {rewording.new_base} here"
        return None if own >= self._own else f"{rewording.new_base} mostly means something else"

    def chances(self, query: Query, swap: Swap) -> tuple[float, float]:
        """How likely the old word has the shared sense here, and how often the new word has it."""
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
        if self._judge is None:
            return {"commonest_senses": self._ranks}
        return {"chance_in_context": self._chance, "more_for_verbs": _VAGUER, "share_of_new_word": self._own}


class Similarity:
    """Word vectors agree that the two mean the same, and that the new one fits where the old one stood."""

    name = "similarity"

    def __init__(
        self,
        meaning: Meaning,
        context: Callable[[Query, str], Any],
        *,
        word: float = 0.61,
        rarer: float = 0.07,
        hypernym: float = 0.65,
        fit: float = 0.2,
        sentence: float = 0.8,
    ) -> None:
        """context: of a query without one word, a vector; rarer: so much more for a sense that is not the commonest."""
        self._meaning, self._context = meaning, context
        self._word, self._hypernym, self._fit, self._sentence = word, hypernym, fit, sentence
        self._rarer = rarer

    def reason(self, query: Query, rewording: Rewording) -> str | None:
        if not isinstance(rewording, Swap):
            near = self._meaning.sentence_similarity(content(query.words), content(tokenize(rewording.sentence)))
            return None if near is not None and near >= self._sentence else f"another sentence ({_shown(near)})"
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
        """The cosine of the two words, as they stand or as lemmas, whichever is closer."""
        pairs = ((swap.base, swap.new_base), (swap.changes[0].old.lower(), swap.changes[0].new))
        return max((near for pair in pairs if (near := self._meaning.similarity(*pair)) is not None), default=None)

    def describe(self) -> dict[str, Any]:
        return {
            "synonym": self._word,
            "rarer_sense": self._rarer,
            "hypernym": self._hypernym,
            "context": self._fit,
            "sentence": self._sentence,
        }


def _shown(value: float | None) -> str:
    return "no vector" if value is None else f"{value:.2f}"


class Collision:
    """The new wording must not describe another moment of the video: its words are not those of another query there."""

    name = "collision"

    def __init__(self, meaning: Meaning) -> None:
        self._meaning = meaning

    def reason(self, query: Query, rewording: Rewording) -> str | None:
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
        return {}


def first_reason(filters: Sequence[Filter], query: Query, rewording: Rewording) -> tuple[str, str] | None:
    """(the filter that turns a rewording down, why), or None."""
    for each in filters:
        reason = each.reason(query, rewording)
        if reason is not None:
            return each.name, reason
    return None
