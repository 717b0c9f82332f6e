"""NLTK's sentence splitter, whose data has to be downloaded, for queries that are single sentences."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from hero_plugin.integrations.launch.patches import Patch
from hero_plugin.integrations.launch.script import missing
from hero_plugin.integrations.launch.shims import Shim


def _one_sentence(tokenize: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(tokenize)
    def tokenized(text: str, language: str = "english", preserve_line: bool = True) -> list[str]:
        return tokenize(text, language=language, preserve_line=True)

    return tokenized


def _needed() -> bool:
    if missing("nltk"):
        return False
    try:
        importlib.import_module("nltk").word_tokenize("a")
    except LookupError:
        return True
    return False


PUNKT = Shim(
    name="punkt",
    symptom="LookupError: Resource punkt_tab not found, while EMB makes its data set",
    repair="a query is one sentence: only what splits texts into sentences is left out, words are NLTK's own. "
    "Tokens differ where a period stands inside a query",
    needed=_needed,
    patches=(Patch("util.data_gen", "word_tokenize", _one_sentence, "takes a query as one sentence"),),
)
