"""Training sentences in which words give way to near ones, so that a base meets more words than its training has.

Not in the paper. Whole words of the table take a word's place, before any model: it works with HERO and without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Tokenizer, WordVectors, load_word_vectors, plain
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.device import seed_of

NEAREST, NEAR_WORDS = 0.55, 8
"""A word gives way to one of so many nearest ones, at a cosine above this: docs/results/one_level.md."""
_AT_ONCE = 1 << 24


def near_words(training: Sequence[str], table: WordVectors, tokenize: Tokenizer) -> dict[str, tuple[str, ...]]:
    """Return for each word of the training sentences the near words of the table that these sentences lack.

    A word that they have keeps its own meaning: near "opens" is "closes", too. What ``tokenize`` does not leave in one
    piece is no word.
    """
    known = set(training)
    names = [word for word in table.words if word not in known and tokenize(word) == [word]]
    words = [word for word in training if word in table]
    if not names or not words:
        return {}
    others, directions = (_directions(table, each) for each in (names, words))
    rows, many = max(1, _AT_ONCE // len(names)), min(NEAR_WORDS, len(names))
    found: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(words), rows):
        cosines = directions[start : start + rows] @ others.T
        nearest = np.argpartition(-cosines, many - 1, axis=1)[:, :many]
        for word, cosine, places in zip(words[start:], cosines, nearest, strict=False):
            near = sorted((-cosine[place], names[place]) for place in places if cosine[place] > NEAREST)
            if near:
                found[word] = tuple(name for _, name in near)
    return found


def _directions(table: WordVectors, words: Sequence[str]) -> np.ndarray:
    vectors = table.vectors[[table.index[word] for word in words]]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class WordSwaps:
    """What words of the training sentences may give way to.

    Attributes:
        near: Near words by word.
        share: Probability that a word which has near ones gives way to one of them, each equally likely.
        tokenize: Splits a sentence into words.
    """

    near: Mapping[str, tuple[str, ...]]
    share: float
    tokenize: Tokenizer

    @classmethod
    def of(cls, config: TrainConfig, sets: Mapping[str, Sequence[Record]], tokenize: Tokenizer) -> WordSwaps | None:
        """Return the swaps that the settings ask for; None where they ask for none, or no set is to train on.

        Raises:
            UserError: No word has a near one.
        """
        if not config.swap_words or "train" not in sets:
            return None
        training = list(dict.fromkeys(word for record in sets["train"] for word in tokenize(record.sentence)))
        near = near_words(training, load_word_vectors(config.word_table), tokenize)
        if not near:
            raise UserError(
                f"--swap-words: {config.words} has no word near one of the training sentences that they lack; "
                "give --words a table of more words than those of the annotations"
            )
        return cls(near, config.swap_words, tokenize)

    @property
    def words(self) -> list[str]:
        """Return all near words, each once."""
        return list(dict.fromkeys(chain.from_iterable(self.near.values())))

    def records(self, records: Sequence[Record], seed: int, epoch: int) -> list[Record]:
        """Return the records with the sentences of an epoch: the same for the same seed and epoch."""
        tokens = [self.tokenize(record.sentence) for record in records]
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, "swaps"))
        draws = torch.rand((sum(map(len, tokens)), 2), generator=generator, dtype=torch.float64).tolist()
        ends = np.cumsum([len(words) for words in tokens])
        return [
            record.replace(sentence=self._sentence(record.sentence, words, draws[end - len(words) : end]))
            for record, words, end in zip(records, tokens, ends, strict=True)
        ]

    def _sentence(self, sentence: str, words: Sequence[str], draws: Sequence[Sequence[float]]) -> str:
        """Return the sentence with near words in place of those that the draws fall on."""
        text, done, swapped, pieces = plain(sentence), 0, list(words), []
        for place, (word, (chance, which)) in enumerate(zip(words, draws, strict=True)):
            start = text.find(word, done)
            if start < 0:  # a tokenizer of one's own, which changes words
                return sentence
            if chance < self.share and (near := self.near.get(word)):
                swapped[place] = near[int(which * len(near))]
            pieces += [text[done:start], swapped[place]]
            done = start + len(word)
        text = "".join([*pieces, text[done:]])
        return text if swapped != list(words) and self.tokenize(text) == swapped else sentence


def words_to_look_up(
    config: TrainConfig, sets: Mapping[str, Sequence[Record]], tokenize: Tokenizer
) -> tuple[set[str], WordSwaps | None]:
    """Return the words of sets that a table is to have, and what training words give way to, which is among them."""
    words = {word for records in sets.values() for record in records for word in tokenize(record.sentence)}
    swaps = WordSwaps.of(config, sets, tokenize)
    return words.union(() if swaps is None else swaps.words), swaps
