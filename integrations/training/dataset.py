"""The data of a training or an evaluation, whatever its base: annotations and clip features."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hero_plugin.integrations.data import ReadReport, Tokenizer, read_annotations
from hero_plugin.integrations.data.checks import differing_lengths
from hero_plugin.integrations.data.feature_bank import FeatureBank, Storage, StoreBank
from hero_plugin.integrations.data.features import FeatureStore, Source, missing_features, open_features
from hero_plugin.integrations.data.moments import moments_to_clips
from hero_plugin.integrations.data.records import Record, original_records
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import Problems
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.queries import WordSwaps


@dataclass
class GroundingData:
    """Records by set (``train``, ``val`` or a test set's name), and the features of their videos."""

    sets: dict[str, list[Record]]
    store: FeatureStore
    tokenize: Tokenizer
    swaps: WordSwaps | None = field(default=None, kw_only=True)
    """What training words give way to; None where they stay."""
    words: Sequence[str] = field(default=(), kw_only=True)
    """Words of sentences that are not known yet."""

    def sentences(self, *sets: str) -> Iterable[Sequence[str]]:
        """Yield the words of every sentence of the given sets; where none is given, of all sets and those to come."""
        if not sets and self.words:
            yield self.words
        for name in sets or self.sets:
            for record in self.sets[name]:
                yield self.tokenize(record.sentence)

    def videos(self) -> list[str]:
        """Return the ids of all videos, each once."""
        return list(dict.fromkeys(record.video_id for records in self.sets.values() for record in records))

    def bank(self, storage: Storage, gigabytes: float, screen: Screen) -> StoreBank:
        """Read the features of all videos."""
        with screen.working("reading features", len(self.videos())) as progress:
            return StoreBank(self.store, self.videos(), storage=storage, gigabytes=gigabytes, progress=progress)


def open_clips(config: TrainConfig, sources: Source | Sequence[Source] | None = None) -> FeatureStore:
    """Open the clip features that settings name, or others in their place, as the model is to read them."""
    return open_features(
        config.feature_paths if sources is None else sources,
        max_clips=config.max_clips,
        pooling=config.clip_pooling,
        normalize=getattr(config, "normalize_features", False),
    )


def originals_of(name: str) -> str:
    """Return the name of the set of queries that those of the set ``name`` reword."""
    return f"{name} (originals)"


def read_sets(
    paths: Mapping[str, Path],
    config: TrainConfig,
    store: FeatureStore,
    tokenize: Tokenizer,
    screen: Screen | None = None,
    originals: bool = False,
    for_training: bool = True,
) -> dict[str, list[Record]]:
    """Read and check the annotations of every set.

    Every video must have features, and every sentence a word. With ``originals``, each set with reworded queries has a
    set of their originals beside it, named by ``originals_of``. ``for_training``, a set called train is one to train
    on, whose queries need moments; else it is a set to score that happens to have this name.

    Raises:
        DataError: Whatever is wrong with the files, all at once.
        FileNotFoundError: A file is missing.
    """
    sets: dict[str, list[Record]] = {}
    problems = Problems()
    screen = screen or Screen(quiet=True)
    for name, path in paths.items():
        with problems.collecting():
            report = ReadReport()
            sets[name] = read_annotations(path, durations=config.durations, on_broken=config.on_broken, report=report)
            if report.dropped:
                screen.say(f"{path}: left out {len(report.dropped)} queries that cannot be used (--on-broken drop)")
            if report.lost_windows:
                screen.say(f"{path}: left out {len(report.lost_windows)} windows of queries that keep others")
            if report.clamped:
                moments = sum(len(record.moments) for record in sets[name])
                screen.say(
                    f"{path}: {report.clamped} of {moments} moments end after their video, and were cut at its end"
                )
            if for_training and name == "train":
                sets[name] = with_moments(sets[name], str(path), config, screen)
            elif bare := sum(not record.moments for record in sets[name]):
                screen.say(f"{path}: {bare} of {len(sets[name])} queries have no moment, and do not count in scores")
            check_records(sets[name], store, tokenize, str(path))
            if originals and (found := original_records(sets[name])):
                sets[originals_of(name)] = found
    problems.raise_if_any()
    if lengths := differing_lengths(record for records in sets.values() for record in records):
        screen.say(f"note: {len(lengths)} videos have two lengths in these files: {lengths[0]}; see `data check`")
    return sets


def with_moments(records: list[Record], source: str, config: TrainConfig, screen: Screen) -> list[Record]:
    """Return the records that have a moment to train on; the others are broken queries.

    Raises:
        DataError: There are others, and the settings do not say to leave out such queries; or there are only others.
    """
    found = [record for record in records if record.moments]
    if found and config.on_broken == "drop":
        if len(found) < len(records):
            screen.say(f"{source}: left out {len(records) - len(found)} queries without a moment (--on-broken drop)")
        return found
    problems = Problems()
    for record in records:
        if not record.moments:
            fix = "annotate or remove it, or leave such queries out with --on-broken drop"
            problems.add(f"{source}: query {record.query_id}", "no moment to train on", fix)
    problems.raise_if_any()
    return found


def check_records(records: Sequence[Record], features: FeatureStore, tokenize: Tokenizer, source: str) -> None:
    """Raise ``DataError`` with all videos without features and sentences without a word in ``source``."""
    problems = Problems()
    for record in records:
        if not tokenize(record.sentence):
            where = f"{source}: query {record.query_id}"
            problems.add(where, f"no word in {record.sentence!r}", "write a sentence, or remove the query")
    problems += missing_features(features, Counter(record.video_id for record in records), source)
    problems.raise_if_any()


def moments_on_clips(
    records: Sequence[Record], bank: FeatureBank, for_training: bool = False
) -> list[tuple[Record, int, int, int]]:
    """Return each record with its video's row of the bank, and first and last clip of its moment, inclusive.

    A record counts once, with its first moment, or the whole video where it has none; ``for_training``, once for each
    of its moments.
    """
    pairs: list[tuple[Record, tuple[float, float]]] = []
    for record in records:
        moments = record.moments if for_training else record.moments[:1] or ((0.0, record.duration),)
        pairs.extend((record, moment) for moment in moments)
    if not pairs:
        return []
    rows = [bank.rows[record.video_id] for record, _ in pairs]
    first, last = moments_to_clips(
        [moment[0] for _, moment in pairs],
        [moment[1] for _, moment in pairs],
        [bank.clips(row) for row in rows],
        [record.duration for record, _ in pairs],
    )
    return [
        (record, row, int(start), int(end))
        for (record, _), row, start, end in zip(pairs, rows, first, last, strict=True)
    ]
