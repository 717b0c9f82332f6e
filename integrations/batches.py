"""Examples and batches of EMB, from annotated sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hero_plugin.adapters.emb.words import PAD
from hero_plugin.integrations.feature_bank import BankCollate, FeatureBank
from hero_plugin.integrations.moments import moments_to_clips
from hero_plugin.integrations.problems import Problems
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.task import Batch
from hero_plugin.integrations.vocabulary import Vocabulary

Tokenize = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Example:
    """A query, ready for a batch."""

    record: Record
    word_ids: np.ndarray
    """(words,) int64."""
    video: int
    """Row of the feature bank."""
    first: int
    """First clip of the moment it trains on; 0 where the query has none."""
    last: int
    """Last clip, inclusive."""


def check_records(records: Sequence[Record], known: Any, tokenize: Tokenize, source: str, features: str) -> None:
    """Check that every query can be predicted.

    Args:
        records: The queries.
        known: Holds the ids of the videos that have features.
        tokenize: Splits a sentence into words.
        source: Name of the annotations, for messages.
        features: Name of the features, for messages.

    Raises:
        DataError: Videos without features and sentences without a word, all at once.
    """
    problems = Problems()
    missing: dict[str, int] = {}
    for record in records:
        if record.video_id not in known:
            missing[record.video_id] = missing.get(record.video_id, 0) + 1
        if not tokenize(record.sentence):
            problems.add(
                f"{source}: query {record.query_id}",
                f"no word in {record.sentence!r}",
                "write a sentence, or remove the query",
            )
    for video, queries in missing.items():
        problems.add(
            f"{source}: video {video}",
            f"{queries} queries, and no features in {features}",
            "add its feature file, correct --features, or remove its queries",
        )
    problems.raise_if_any()


def make_examples(
    records: Sequence[Record],
    bank: FeatureBank,
    vocabulary: Vocabulary,
    tokenize: Tokenize,
    *,
    max_words: int,
    every_moment: bool = False,
) -> list[Example]:
    """Make one example per query; with ``every_moment``, for training, one for each of its moments."""
    pairs = []
    for record in records:
        moments = record.moments if every_moment else record.moments[:1] or ((0.0, record.duration),)
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
    ids = {
        record.sentence: np.asarray(vocabulary.ids(tokenize(record.sentence)[:max_words]), np.int64)
        for record in records
    }
    return [
        Example(record, ids[record.sentence], row, int(start), int(end))
        for (record, _), row, start, end in zip(pairs, rows, first, last, strict=True)
    ]


class EmbCollate(BankCollate):
    """The collate function of EMB.

    Inputs, of the requested rows: word_ids (R, L) long, 0 at padding; q_mask (R, L), v_mask (R, T) float32;
    video (R, T, D) float32. Of all: clips (B,) long, how many are real; durations (B,) float32 seconds;
    first, last (B,) long, inclusive.
    """

    def __call__(self, items: Sequence[Example], rows: Sequence[int] | None = None) -> Batch:
        rows = list(range(len(items)) if rows is None else rows)
        clips = [self.clips(item) for item in items]
        videos = [items[row].video for row in rows]
        v_mask = self.bank.mask(videos, max(clips))
        words = np.array([len(item.word_ids) for item in items])
        q_mask = np.arange(words.max()) < words[:, None]
        word_ids = np.full(q_mask.shape, PAD, np.int64)
        word_ids[q_mask] = np.concatenate([item.word_ids for item in items])
        return {
            "word_ids": torch.from_numpy(word_ids[rows]),
            "q_mask": torch.from_numpy(q_mask[rows].astype(np.float32)),
            "video": self.bank.tensor(videos, v_mask),
            "v_mask": torch.from_numpy(v_mask.astype(np.float32)),
            "clips": torch.tensor(clips),
            "durations": torch.tensor([item.record.duration for item in items], dtype=torch.float32),
            "first": torch.tensor([item.first for item in items]),
            "last": torch.tensor([item.last for item in items]),
        }
