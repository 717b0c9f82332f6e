"""The vocabulary of a run, and its extension by new words."""

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
    """The factor between the vectors and the table."""
    trained: int = 0
    """Number of words in training sentences, which come first; the others were never trained on."""
    adapted: tuple[str, ...] = ()
    """Words that adaptations trained on later."""
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
        """Collect the words of tokenized sentences that have vectors, in order of appearance, trained ones first.

        Args:
            training: Sentences to train on.
            others: Further sentences.
            vectors: The word table.
            mean_length: Mean length of a vector after scaling; 0 leaves the table as it is.
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
        """Return the ids of words; unknown ones get the id of the unknown word."""
        return [self._rows.get(token, UNK - FIRST_WORD) + FIRST_WORD for token in tokens]

    def table(self, vectors: WordVectors) -> np.ndarray:
        """Return the vectors of the words, (words, dim) float32, scaled."""
        rows = [vectors.index[word] for word in self.words]
        return (vectors.vectors[rows] * self.scale).astype(np.float32)

    def extended(self, sentences: Iterable[Sequence[str]], vectors: WordVectors) -> Vocabulary:
        """Return this vocabulary plus the new words of the sentences that have vectors; old ids keep their meaning."""
        new = dict.fromkeys(word for sentence in sentences for word in sentence if word in vectors and word not in self)
        return replace(self, words=(*self.words, *new))

    def adapted_to(self, sentences: Iterable[Sequence[str]]) -> Vocabulary:
        """Return this vocabulary with its words in the sentences counted as trained on."""
        new = self.unseen(word for sentence in sentences for word in sentence if word in self)
        return replace(self, adapted=(*self.adapted, *new))

    def unseen(self, tokens: Iterable[str]) -> list[str]:
        """Return the words that no training sentence had, each once."""
        later = set(self.adapted)
        return [
            word
            for word in dict.fromkeys(tokens)
            if self._rows.get(word, self.trained) >= self.trained and word not in later
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the vocabulary as JSON values."""
        adapted = {"adapted": list(self.adapted)} if self.adapted else {}
        return {"scale": self.scale, "trained": self.trained, **adapted, "words": list(self.words)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Vocabulary:
        """Return the vocabulary that ``to_json`` described."""
        return cls(tuple(value["words"]), float(value["scale"]), int(value["trained"]), tuple(value.get("adapted", ())))
