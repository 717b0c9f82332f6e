"""The words that a run knows, and how to give it more of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hero_plugin.adapters.emb.words import FIRST_WORD, UNK
from hero_plugin.integrations.words import WordVectors


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of the rows of a frozen table; ids 0 and 1 are padding and the unknown word.

    >>> vocabulary = Vocabulary(("a", "door", "opens"))
    >>> vocabulary.ids(["a", "wardrobe", "opens"])
    [2, 1, 4]
    """

    words: tuple[str, ...]
    scale: float = 1.0
    """What the vectors were multiplied by to make the table."""
    trained: int = 0
    """So many of the words, the first ones, are in training sentences; the others were never trained on."""
    adapted: tuple[str, ...] = ()
    """Others of the words that were trained on later, by adaptations."""
    _rows: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {word: row for row, word in enumerate(self.words)})

    @classmethod
    def of(
        cls,
        training: Iterable[Sequence[str]],
        others: Iterable[Sequence[str]],
        vectors: WordVectors,
        mean_length: float,
    ) -> Vocabulary:
        """The words of tokenized sentences that have vectors, in order of appearance, the trained ones first.

        mean_length: the table is scaled so that a vector is this long on average; 0 leaves it as it is.
        """
        words = dict.fromkeys(word for sentence in training for word in sentence if word in vectors)
        trained = len(words)
        words.update(dict.fromkeys(word for sentence in others for word in sentence if word in vectors))
        scale = 1.0
        if mean_length and words:
            rows = vectors.vectors[[vectors.index[word] for word in words]]
            scale = mean_length / max(float(np.linalg.norm(rows, axis=1).mean()), 1e-12)
        return cls(tuple(words), scale, trained)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._rows

    def ids(self, tokens: Sequence[str]) -> list[int]:
        return [self._rows.get(token, UNK - FIRST_WORD) + FIRST_WORD for token in tokens]

    def table(self, vectors: WordVectors) -> np.ndarray:
        """(words, dim) float32, scaled."""
        rows = [vectors.index[word] for word in self.words]
        return (vectors.vectors[rows] * self.scale).astype(np.float32)

    def extended(self, sentences: Iterable[Sequence[str]], vectors: WordVectors) -> Vocabulary:
        """This vocabulary, then the new words of the sentences that have vectors. Old ids keep their meaning."""
        new = dict.fromkeys(word for sentence in sentences for word in sentence if word in vectors and word not in self)
        return replace(self, words=(*self.words, *new))

    def adapted_to(self, sentences: Iterable[Sequence[str]]) -> Vocabulary:
        """This vocabulary, its words in the sentences counted as trained on."""
        new = self.unseen(word for sentence in sentences for word in sentence if word in self)
        return replace(self, adapted=(*self.adapted, *new))

    def unseen(self, tokens: Iterable[str]) -> list[str]:
        """Those of the words that no training sentence had, each once."""
        later = set(self.adapted)
        return [
            word
            for word in dict.fromkeys(tokens)
            if self._rows.get(word, self.trained) >= self.trained and word not in later
        ]

    def to_json(self) -> dict[str, Any]:
        adapted = {"adapted": list(self.adapted)} if self.adapted else {}
        return {"scale": self.scale, "trained": self.trained, **adapted, "words": list(self.words)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Vocabulary:
        return cls(tuple(value["words"]), float(value["scale"]), int(value["trained"]), tuple(value.get("adapted", ())))
