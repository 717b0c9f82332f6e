"""Trained run that is ready for queries which are not read yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from hero_plugin.integrations.data.feature_bank import ArrayBank, BankCollate, FeatureBank
from hero_plugin.integrations.data.features import FeatureStore, open_features
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Vocabulary, tokenize
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData
from hero_plugin.integrations.training.detr import DetrTrainConfig
from hero_plugin.integrations.training.detr_batches import ARRAY
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Task

Tokenize = Callable[[str], list[str]]


class StreamedQueries:
    """Vectors of queries from a file per query, read when a batch is made."""

    def __init__(self, store: FeatureStore) -> None:
        self.store, self.dim = store, store.dim

    @classmethod
    def open(cls, config: DetrTrainConfig) -> StreamedQueries:
        """Open the folder that a config names."""
        folder, longest = config.query_features, config.max_words
        assert folder is not None
        return cls(
            open_features(folder, max_clips=longest, pooling="cut", normalize=config.normalize_words, array=ARRAY)
        )

    def name(self, query_id: str, video_id: str) -> str | None:
        """Return the name of a query's file without its ending, None if there is none.

        All pairs of a query and a video share the query's file.
        """
        query = query_id.removesuffix(f"@{video_id}")
        return next((name for name in (f"qid{query}", query) if name in self.store), None)

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (B, L, dim) float32 with zeros for padding, and their mask (B, L) bool."""
        names = [self.name(record.query_id, record.video_id) or record.query_id for record in records]
        bank = ArrayBank({name: self.store[name] for name in dict.fromkeys(names)}, self.dim)
        return bank.batch([bank.rows[name] for name in names])


@dataclass
class RunPredictor:
    """A run's model for the words of its queries, and how examples of records are made."""

    task: Task
    settings: TrainConfig
    data: GroundingData
    vocabulary: Vocabulary

    @property
    def pads(self) -> bool:
        """Whether videos of different lengths may share a batch."""
        return not BASES[self.settings.base].reads_video_padding

    def examples(self, records: list[Record], bank: FeatureBank) -> list[Any]:
        """Return examples of records whose videos are in ``bank``, in the same order."""
        window = replace(self.data, sets={"window": records})
        return BASES[self.settings.base].examples(self.settings, window, "window", bank, self.vocabulary)

    def collate(self, bank: FeatureBank) -> BankCollate:
        """Return what makes batches of examples whose videos are in ``bank``."""
        collate = self.task.collate
        assert isinstance(collate, BankCollate)
        return collate.with_bank(bank)


def split_of(settings: TrainConfig) -> Tokenize:
    """Return the run's tokenizer."""
    return partial(tokenize, style=settings.tokenizer)


def written_queries(settings: TrainConfig) -> StreamedQueries | None:
    """Return the queries' own features, None for a run that was trained without such."""
    if getattr(settings, "query_features", None) is None:
        return None
    return StreamedQueries.open(cast(DetrTrainConfig, settings))


def load_predictor(
    run: RunFolder,
    settings: TrainConfig,
    store: FeatureStore,
    words: Iterable[str],
    *,
    checkpoint: str,
    device: torch.device,
    written: StreamedQueries | None = None,
) -> RunPredictor:
    """Load the model of a run for sentences of the given words.

    Args:
        run: folder of the run.
        settings: its settings.
        store: features of the videos.
        words: distinct words of all queries.
        checkpoint: ``best`` or ``last``.
        device: where the model goes.
        written: the queries' own features, for a base that reads such.

    Raises:
        UserError: features or word vectors are not of the run's kind, or no word has a vector.
    """
    base, split, wanted = BASES[settings.base], split_of(settings), list(words)
    data: GroundingData = base.words_only(settings, store, wanted, split, written)
    state = load_checkpoint(run.best if checkpoint == "best" else run.last)
    known = Vocabulary.from_json(run.vocabulary())
    try:
        # Only the words of the queries are known yet: their records and videos come window by window.
        bank = ArrayBank({}, store.dim)
        task, vocabulary = base.trained(settings, data, bank, known, state["model"], device, sentences=[wanted])
    except UserError as error:
        raise UserError(f"{run.path}: {error}") from error
    task.model.eval()
    return RunPredictor(task, settings, data, vocabulary)
