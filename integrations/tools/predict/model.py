"""Inputs of a prediction, and its trained model, ready for queries that are not read yet."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hero_plugin.integrations.data.feature_bank import ArrayBank, BankCollate, FeatureBank
from hero_plugin.integrations.data.features import FeatureStore, open_features, sample_clips
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Vocabulary
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.predict.config import PredictConfig
from hero_plugin.integrations.tools.predict.queries import QueryFile, QueryValidator
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.batching import to_device
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData
from hero_plugin.integrations.training.detr import DetrTrainConfig
from hero_plugin.integrations.training.detr_batches import ARRAY, Queries
from hero_plugin.integrations.training.device import Amp, autocast
from hero_plugin.integrations.training.load_run import answer_with
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Batch, Prediction, Task


class StreamedQueries(Queries):
    """Vectors of queries from a file per query, read when a batch is made."""

    def __init__(self, store: FeatureStore) -> None:
        self.store, self.dim = store, store.dim

    @classmethod
    def of(cls, settings: TrainConfig) -> StreamedQueries | None:
        """Open the folder that a run's settings name, None for a run that was trained without such."""
        if not isinstance(settings, DetrTrainConfig) or (folder := settings.query_features) is None:
            return None
        longest, unit = settings.max_words, settings.normalize_words
        return cls(open_features(folder, max_clips=longest, pooling="cut", normalize=unit, array=ARRAY, rows="words"))

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
class Inputs:
    """Everything that the flags name, opened."""

    config: PredictConfig
    run: RunFolder
    settings: TrainConfig
    store: FeatureStore
    """Whole videos: what the run shortens is shortened once the clips are counted."""
    written: StreamedQueries | None
    """The queries' own features, for a base that reads such."""
    validator: QueryValidator
    queries: QueryFile

    @property
    def weights(self) -> Path:
        """The checkpoint that answers."""
        return self.run.best if self.config.checkpoint == "best" else self.run.last

    @property
    def amp(self) -> Amp:
        """Half precision in the forward pass."""
        return self.config.amp or self.settings.amp


@dataclass
class RunPredictor:
    """A run's model for the words of its queries, and how examples of records are made."""

    task: Task
    settings: TrainConfig
    data: GroundingData
    vocabulary: Vocabulary
    device: torch.device
    amp: Amp

    @classmethod
    def load(cls, inputs: Inputs, words: Sequence[str], device: torch.device) -> RunPredictor:
        """Load the model of a run for sentences of the given words.

        Raises:
            UserError: features or word vectors are not of the run's kind, or no word has a vector.
        """
        run, settings, store = inputs.run, inputs.settings, inputs.store
        base = BASES[settings.base]
        data: GroundingData = base.words_only(settings, store, words, inputs.validator.tokenize, inputs.written)
        state = load_checkpoint(inputs.weights)
        known = Vocabulary.from_json(run.vocabulary())
        try:
            # Only the words of the queries are known yet: their records and videos come window by window.
            bank = ArrayBank({}, store.dim)
            task, vocabulary = base.load_task(
                settings, data, bank, known, state["model"], device, [words], inputs.config.bridge
            )
            answer_with(task.model, inputs.config.levels)
        except UserError as error:
            raise UserError(f"{run.path}: {error}") from error
        task.model.eval()
        return cls(task, settings, data, vocabulary, device, inputs.amp)

    @property
    def pads(self) -> bool:
        """Whether videos of different lengths may share a batch."""
        return not BASES[self.settings.base].reads_video_padding

    def shorten(self, array: np.ndarray) -> np.ndarray:
        """Return a video's features (clips, dim) as short as the model gets them."""
        pooling = "cut" if self.settings.seconds_per_clip else self.settings.pooling
        return sample_clips(array, max_clips=self.settings.max_clips, pooling=pooling)

    def examples(self, records: list[Record], bank: FeatureBank) -> list[Any]:
        """Return examples of records whose videos are in ``bank``, in the same order."""
        window = copy(self.data)
        window.sets = {"window": records}
        return BASES[self.settings.base].examples(self.settings, window, "window", bank, self.vocabulary)

    def collate(self, bank: FeatureBank) -> BankCollate:
        """Return what makes batches of examples whose videos are in ``bank``."""
        collate = self.task.collate
        assert isinstance(collate, BankCollate)
        return collate.with_bank(bank)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Prediction:
        """Return a batch's answers, still on the device."""
        with autocast(self.amp, self.device):
            return self.task.predict(self.task.model, to_device(batch, self.device))
