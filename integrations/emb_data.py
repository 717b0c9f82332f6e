"""What a training or an evaluation of EMB reads: annotations, features and word vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hero_plugin.integrations.annotations import ReadReport, read_annotations
from hero_plugin.integrations.batches import Example, check_records, make_examples
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.feature_bank import FeatureBank, Storage
from hero_plugin.integrations.features import FeatureStore, open_features
from hero_plugin.integrations.problems import DataError
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.train_config import TrainConfig
from hero_plugin.integrations.vocabulary import Vocabulary
from hero_plugin.integrations.words import WordVectors, load_word_vectors, tokenize


@dataclass
class EmbData:
    """Records by set (``train``, ``val`` or a test set's name), and what grounds them."""

    sets: dict[str, list[Record]]
    store: FeatureStore
    vectors: WordVectors
    tokenize: Callable[[str], list[str]]

    def sentences(self, *sets: str) -> Iterable[list[str]]:
        """The words of every sentence of the given sets; of all sets where none is given."""
        for name in sets or self.sets:
            for record in self.sets[name]:
                yield self.tokenize(record.sentence)

    def videos(self) -> list[str]:
        return list(dict.fromkeys(record.video_id for records in self.sets.values() for record in records))

    def bank(self, storage: Storage, gigabytes: float, screen: Screen) -> FeatureBank:
        with screen.working("reading features", len(self.videos())) as progress:
            return FeatureBank(self.store, self.videos(), storage=storage, gigabytes=gigabytes, progress=progress)

    def examples(self, name: str, bank: FeatureBank, vocabulary: Vocabulary, max_words: int) -> list[Example]:
        """The queries of a set; of ``train``, one for each moment of each query."""
        return make_examples(
            self.sets[name],
            bank,
            vocabulary,
            self.tokenize,
            max_words=max_words,
            every_moment=name == "train",
        )


def read_data(
    paths: Mapping[str, Path],
    *,
    features: Sequence[Path],
    words: Path,
    config: TrainConfig,
    durations: Path | None,
    screen: Screen | None = None,
) -> EmbData:
    """Read and check everything that does not need the features themselves.

    Raises:
        DataError: whatever is wrong with the annotations, all of it at once.
        FileNotFoundError: a file is not there.
    """
    store = open_features([Path(path) for path in features], max_clips=config.max_clips, pooling=config.pooling)
    split = partial(tokenize, style=config.tokenizer)
    sets: dict[str, list[Record]] = {}
    problems = []
    for name, path in paths.items():
        try:
            report = ReadReport()
            sets[name] = read_annotations(path, durations=durations, on_broken=config.on_broken, report=report)
            if screen is not None and report.dropped:
                screen.say(f"{path}: left out {len(report.dropped)} queries that cannot be used (--on-broken drop)")
            check_records(sets[name], store, split, str(path), ", ".join(map(str, features)))
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(problems)
    wanted = {word for records in sets.values() for record in records for word in split(record.sentence)}
    return EmbData(sets, store, load_word_vectors(words, wanted), split)
