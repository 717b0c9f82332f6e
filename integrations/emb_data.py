"""The data of EMB: annotations, features and word vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hero_plugin.integrations.batches import Example, make_examples
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.data import GroundingData, read_sets
from hero_plugin.integrations.emb_config import EmbTrainConfig
from hero_plugin.integrations.feature_bank import FeatureBank
from hero_plugin.integrations.features import FeatureStore, open_features
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocabulary import Vocabulary
from hero_plugin.integrations.words import WordVectors, load_word_vectors, tokenize


@dataclass
class EmbData(GroundingData):
    """Records, features, and a table of word vectors."""

    sets: dict[str, list[Record]]
    store: FeatureStore
    vectors: WordVectors
    tokenize: Callable[[str], list[str]]

    def examples(
        self, name: str, bank: FeatureBank, vocabulary: Vocabulary, max_words: int, *, every_moment: bool = False
    ) -> list[Example]:
        """Make the examples of a set; with ``every_moment``, for training, one for each moment of each query."""
        return make_examples(
            self.sets[name],
            bank,
            vocabulary,
            self.tokenize,
            max_words=max_words,
            every_moment=every_moment,
        )


def read_data(
    paths: Mapping[str, Path], config: EmbTrainConfig, screen: Screen | None = None, originals: bool = False
) -> EmbData:
    """Read and check everything that does not need the features themselves; ``originals`` as in ``read_sets``.

    Raises:
        DataError: Whatever is wrong with the annotations, all at once.
        FileNotFoundError: A file is missing.
    """
    store = open_features(list(config.features), max_clips=config.max_clips, pooling=config.pooling)
    split = partial(tokenize, style=config.tokenizer)
    sets = read_sets(paths, config, store, split, screen, originals)
    wanted = {word for records in sets.values() for record in records for word in split(record.sentence)}
    return EmbData(sets, store, load_word_vectors(config.words, wanted), split)
