"""Form of a verb in a query, where its spelling leaves it open."""

from __future__ import annotations

from hero_plugin.integrations.vocab.english import inflected, lemmas
from hero_plugin.integrations.vocab.query import TaggedQuery

__all__ = ["verb_form"]

_HAVE = frozenset(("has", "have", "had", "having", "'ve"))
_BE = frozenset(("be", "am", "is", "are", "was", "were", "been", "being", "gets", "get", "got"))
_MODALS = ("can", "will", "would", "should", "could", "must", "does", "do", "did")
_ASK_BASE = frozenset(("to", "they", "you", "we", "i", "and", "then", *_MODALS))


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
    before = query.words[place - 1] if place else ""
    if before in ("also", "then", "just", "not") and place > 1:
        before = query.words[place - 2]
    if "VBN" in fitting and before in _BE:
        return None
    if "VBN" in fitting and before in _HAVE:
        return "VBN"
    if "VB" in fitting and "VBD" in fitting:
        return "VB" if before in _ASK_BASE or query.tags[place] in ("VB", "VBP") else "VBD"
    return "VBD" if "VBD" in fitting else fitting[0]
