"""Tokenizers by name: every figure about vocabularies depends on what counts as a word."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.words import tokenize

__all__ = ["TOKENIZERS", "Tokenizer", "open_tokenizer"]

Tokenizer = Callable[[str], list[str]]
"""A sentence to its words, in order."""

_EDGES = ".,!?;:\"'()[]"


def _treebank(sentence: str) -> list[str]:
    return tokenize(sentence, "treebank")


def _whitespace(sentence: str) -> list[str]:
    return sentence.lower().split()


def _stripped(sentence: str) -> list[str]:
    return [word for raw in _whitespace(sentence) if (word := raw.strip(_EDGES))]


def _letters(sentence: str) -> list[str]:
    return re.findall(r"[a-z]+", sentence.lower())


TOKENIZERS: dict[str, tuple[Tokenizer, str]] = {
    "words": (tokenize, "letters and digits, apostrophes and hyphens inside words kept (the default)"),
    "treebank": (_treebank, "as GloVe and EMB: contractions split, punctuation marks are tokens"),
    "whitespace": (_whitespace, "lower case, split at blanks, punctuation left on"),
    "stripped": (_stripped, "the same, punctuation at the words' edges cut off"),
    "letters": (_letters, "runs of a to z"),
}


def open_tokenizer(name: str) -> Tokenizer:
    """Return a tokenizer by its name in ``TOKENIZERS``, or by its place, "package.module:function"."""
    if name in TOKENIZERS:
        return TOKENIZERS[name][0]
    module, colon, function = name.partition(":")
    expected = f"expected one of {', '.join(TOKENIZERS)}, or MODULE:FUNCTION"
    if not colon:
        raise UserError(f"no tokenizer {name!r}: {expected}")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"no tokenizer {name!r} ({error}): {expected}") from error
    return found
