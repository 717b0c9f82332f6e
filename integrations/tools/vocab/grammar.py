"""A query as the builder sees it: its words and their tags, its noun phrases, the form of a verb in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import tokenize, word_spans
from hero_plugin.integrations.tools.vocab.english import Tagger, inflected, lemma, lemmas

_PRONOUNS = frozenset(("it", "them", "him", "her", "something", "everything", "themselves", "themself", "himself"))
_REFLEXIVE = frozenset(("themselves", "themself", "himself", "herself"))
_MEASURE_NOUNS = "pair piece pile bite sip lot couple stack bunch bit load slice handful few"
_MEASURES = frozenset(_MEASURE_NOUNS.split())
"""Nouns that say how much of what comes after "of"."""
_BEFORE_NOUN = ("DT", "PRP$", "JJ", "CD")
_HAVE = frozenset(("has", "have", "had", "having", "'ve"))
_BE = frozenset(("be", "am", "is", "are", "was", "were", "been", "being", "gets", "get", "got"))
_MODALS = ("can", "will", "would", "should", "could", "must", "does", "do", "did")
_BEFORE_BASE = frozenset(("to", "they", "you", "we", "i", "and", "then", *_MODALS))
"""Words after which a verb that could be its base form or its past is the base form."""


@dataclass(frozen=True)
class TaggedQuery:
    """A query with its words tagged.

    Attributes:
        record: The query.
        words: Lower case.
        spans: Start and end of each word in the sentence.
        tags: Penn tag of each word.
        siblings: The other queries of the same video.
    """

    record: Record
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    siblings: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def sentence(self) -> str:
        """The sentence as written."""
        return self.record.sentence

    def word(self, place: int) -> str:
        """Return the word at a place; "" outside the query."""
        return self.words[place] if 0 <= place < len(self.words) else ""

    def tag(self, place: int) -> str:
        """Return the tag at a place; "" outside the query."""
        return self.tags[place] if 0 <= place < len(self.tags) else ""

    def breaks_off(self, place: int) -> bool:
        """Return whether a punctuation mark, or no word at all, stands between this place and the next."""
        if not 0 <= place < len(self.words) - 1:
            return True
        return any(mark in self.sentence[self.spans[place][1] : self.spans[place + 1][0]] for mark in ".,;:!?")

    def with_words(self, edits: Mapping[int, str]) -> str:
        """Return the sentence with some words replaced, capitals kept; "" removes a word and the blank after it."""
        pieces, done = [], 0
        capital = False
        for place in sorted(edits):
            (start, end), new = self.spans[place], edits[place]
            pieces.append(self.sentence[done:start])
            capital = capital or self.sentence[start].isupper()
            if new:
                pieces.append(new[0].upper() + new[1:] if capital else new)
                capital = False
            else:
                end += len(self.sentence[end:]) - len(self.sentence[end:].lstrip())
                if not self.sentence[end : end + 1].isalnum():  # nothing, or a full stop
                    pieces = ["".join(pieces).rstrip()]
            done = end
        return "".join(pieces) + self.sentence[done:]


def make_query(record: Record, siblings: Sequence[Record], tagger: Tagger) -> TaggedQuery:
    """Tokenize and tag a record's sentence."""
    words = tuple(tokenize(record.sentence))
    spans = tuple(word_spans(record.sentence))
    if len(spans) != len(words):  # a letter whose lower case is two
        words, spans = (), ()
    others = tuple(other for other in siblings if other is not record)
    return TaggedQuery(record, words, spans, tuple(tagger.tag(words)) if words else (), others)


@dataclass(frozen=True)
class NounPhrase:
    """The noun phrase words[start:stop] of a query."""

    start: int
    stop: int
    head: str
    """What it is about, as it stands: "shoes" in "a pair of old shoes"."""
    is_pronoun: bool = False

    @property
    def heads(self) -> frozenset[str]:
        """The head as it stands and in the singular."""
        return frozenset((self.head, lemma(self.head, "n") or self.head))


def noun_phrase(query: TaggedQuery, start: int) -> NounPhrase | None:
    """Return the noun phrase that begins at a place of the query, None if none does."""
    if query.word(start) in _PRONOUNS:
        if query.words[start] in _REFLEXIVE and (more := noun_phrase(query, start + 1)) is not None:
            return NounPhrase(start, more.stop, more.head)  # "pours themselves a glass"
        if query.words[start] != "her" or not _is_noun(query, start + 1):
            return NounPhrase(start, start + 1, query.words[start], is_pronoun=True)
    place = start
    while query.tag(place) in _BEFORE_NOUN or (place > start and _is_participle(query, place)):
        place += 1
    first = place
    while _is_noun(query, place) and (place == first or not query.breaks_off(place - 1)):
        place += 1
    if place == first:
        return None
    head = query.words[place - 1]
    if query.word(place) == "of" and (more := noun_phrase(query, place + 1)) is not None:
        return NounPhrase(start, more.stop, more.head if head in _MEASURES else head)
    return NounPhrase(start, place, head)


def opens_noun_phrase(query: TaggedQuery, place: int) -> bool:
    """Return whether a noun phrase may begin here: a noun, a word before one, or a word of unclear class."""
    return query.tag(place) in (*_BEFORE_NOUN, "PRP", "NN", "NNS", "?") or query.word(place) in _PRONOUNS


def _is_noun(query: TaggedQuery, place: int) -> bool:
    return query.tag(place) in ("NN", "NNS")


def _is_participle(query: TaggedQuery, place: int) -> bool:
    """Return whether a participle stands before a noun, as in "a folded towel"."""
    return query.tag(place) in ("VBN", "VBG", "?") and _is_noun(query, place + 1)


def verb_form(query: TaggedQuery, place: int, base: str) -> str | None:
    """Return VB, VBZ, VBG, VBD or VBN; None if the word is no form of ``base``, or a passive one.

    "puts" can be one form only; "put" after "they" or "to" is the base form, after "person" the past.
    """
    word = query.words[place]
    if word != base and word in lemmas(word, "v") and not word.endswith("ed"):
        return None  # "lay" is a verb of its own besides the past of "lie"
    fitting = [tag for tag in ("VB", "VBZ", "VBG", "VBD", "VBN") if word in inflected(base, tag)]
    if not fitting:
        return None
    before = query.word(place - 1)
    if before in ("also", "then", "just", "not") and place > 1:
        before = query.words[place - 2]
    if "VBN" in fitting and before in (*_BE, *_HAVE):
        return None if before in _BE else "VBN"
    if "VB" in fitting and "VBD" in fitting:
        return "VB" if before in _BEFORE_BASE or query.tags[place] in ("VB", "VBP") else "VBD"
    return "VBD" if "VBD" in fitting else fitting[0]
