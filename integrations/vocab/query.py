"""Query as the builder sees it: words, their positions and parts of speech, and its video's other queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab.tagging import Tagger
from hero_plugin.integrations.words import tokenize, word_spans

__all__ = ["TaggedQuery", "make_query"]


@dataclass(frozen=True)
class TaggedQuery:
    """A query with its words tagged.

    Attributes:
        record: the query.
        words: lower case.
        spans: start and end of each word in the sentence.
        tags: Penn tag of each word.
        siblings: the other queries of the same video.
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

    def with_words(self, swaps: dict[int, str]) -> str:
        """Return the sentence with some words replaced, capitals kept; "" removes a word and the blank after it."""
        pieces, done = [], 0
        capital = False
        for place in sorted(swaps):
            (start, end), new = self.spans[place], swaps[place]
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
