"""The data of the DETRs: annotations, features, and the queries' words as vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.data import GroundingData, read_sets
from hero_plugin.integrations.detr_config import DetrTrainConfig
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.features import FeatureStore, open_features
from hero_plugin.integrations.problems import Problems
from hero_plugin.integrations.query_features import Queries, QueryFiles, WordQueries
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.words import load_word_vectors, tokenize


@dataclass
class DetrData(GroundingData):
    """Records, features, and the words of the records."""

    sets: dict[str, list[Record]]
    store: FeatureStore
    queries: Queries
    tokenize: Callable[[str], list[str]]


def read_detr_data(
    paths: Mapping[str, Path], config: DetrTrainConfig, screen: Screen | None = None, originals: bool = False
) -> DetrData:
    """Read and check everything that does not need the features themselves; ``originals`` as in ``read_sets``.

    Raises:
        DataError: Whatever is wrong with the annotations, all at once; or queries without their file.
        FileNotFoundError: A file is missing.
        UserError: The word table has none of the words.
    """
    store = open_features(
        list(config.features),
        max_clips=config.max_clips,
        pooling="cut" if config.seconds_per_clip else config.pooling,
        normalize=config.normalize_features,
    )
    split = partial(tokenize, style=config.tokenizer)
    sets = read_sets(paths, config, store, split, screen, originals)
    if "train" in sets:
        check_annotated(sets["train"], str(paths["train"]))
    records = [record for each in sets.values() for record in each]
    return DetrData(sets, store, read_queries(records, split, config, screen), split)


def read_queries(
    records: list[Record], split: Callable[[str], list[str]], config: DetrTrainConfig, screen: Screen | None
) -> Queries:
    """Read the vectors of the records' words, from the table or from one file per query, as the config says."""
    if config.query_features is not None:
        return QueryFiles(
            config.query_features,
            records,
            max_words=config.max_words,
            normalize=config.normalize_words,
            storage=config.storage,
            gigabytes=config.memory,
            screen=screen,
        )
    vectors = load_word_vectors(config.words, {word for record in records for word in split(record.sentence)})
    if not len(vectors):
        raise UserError("no word of the annotations has a vector in the word table; check --words and --tokenizer")
    return WordQueries(vectors, split, config.max_words, config.normalize_words)


def check_annotated(records: list[Record], source: str) -> None:
    """Raise ``DataError`` where queries to train on have no moment."""
    problems = Problems()
    for record in records:
        if not record.moments:
            problems.add(f"{source}: query {record.query_id}", "no moment to train on", "annotate or remove it")
    problems.raise_if_any()
