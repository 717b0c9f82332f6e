"""English words: possible forms, lemmas and inflections, frequency, article.

lemminflect, wordfreq and inflect know; here they answer through a cache.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache

from hero_plugin.integrations.errors import UserError

__all__ = ["article", "forms", "inflected", "is_mass", "lemma", "lemmas", "need_english", "versions", "zipf"]

PACKAGES = ("lemminflect", "wordfreq", "inflect", "nltk")
POS = {"n": "NOUN", "v": "VERB", "a": "ADJ", "r": "ADV"}
"""WordNet's letters and lemminflect's names."""
_MASS = 1.75  # a plural rarer than its singular by this many powers of ten is hardly ever said


def need_english() -> None:
    """Raise ``UserError`` unless the packages are installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'this needs {", ".join(missing)}: pip install "hero-plugin[vocab]"')


def versions() -> dict[str, str]:
    """Return the versions of the packages, on which the result depends."""
    from importlib.metadata import version

    return {name: version(name) for name in PACKAGES}


@lru_cache(maxsize=200_000)
def lemmas(word: str, pos: str) -> tuple[str, ...]:
    """Return the words of which ``word`` can be a form, as part of speech n, v, a or r; () if there are none."""
    import lemminflect

    return tuple(lemminflect.getAllLemmas(word, upos=POS[pos]).get(POS[pos], ()))


def lemma(word: str, pos: str) -> str | None:
    """Return the first of ``lemmas``, or None."""
    found = lemmas(word, pos)
    return found[0] if found else None


@lru_cache(maxsize=200_000)
def inflected(base: str, tag: str) -> tuple[str, ...]:
    """Return the forms of a lemma for a Penn tag (NN, NNS, VB, VBZ, ...), by dictionary or by rule."""
    import lemminflect

    return tuple(lemminflect.getInflection(base, tag))


@lru_cache(maxsize=200_000)
def forms(word: str) -> frozenset[str]:
    """Return the Penn tags that a word can have by the dictionary: "walks" is NNS or VBZ; none for an unknown word."""
    import lemminflect

    found: set[str] = set()
    for pos, upos in POS.items():
        for base in lemmas(word, pos):
            for tag, words in lemminflect.getAllInflections(base, upos=upos).items():
                if word in words:
                    found.add(tag)
    return frozenset(found)


@lru_cache(maxsize=200_000)
def zipf(word: str) -> float:
    """Return how common a word is: log10 of its occurrences per thousand million words; 0 for none."""
    import wordfreq

    return wordfreq.zipf_frequency(word, "en")


@lru_cache(maxsize=50_000)
def is_mass(noun: str) -> bool:
    """Return whether a singular noun is hardly ever counted ("furniture"), judged by how rare its plural is."""
    plurals = inflected(noun, "NNS")
    return not plurals or plurals[0] == noun or zipf(noun) - max(zipf(word) for word in plurals) > _MASS


@lru_cache(maxsize=50_000)
def article(word: str) -> str:
    """Return the article "a" or "an" that a word takes."""
    return _engine().a(word).split()[0].lower()


@lru_cache(maxsize=1)
def _engine():  # type: ignore[no-untyped-def]
    import inflect

    return inflect.engine()
