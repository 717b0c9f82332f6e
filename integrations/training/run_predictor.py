"""A run's model, loaded for the words of queries whose records and videos come later, a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hero_plugin.integrations.data.feature_bank import ArrayBank, BankCollate, FeatureBank
from hero_plugin.integrations.data.features import FeatureStore, sample_clips
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Vocabulary
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.batching import to_device
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData, Tokenize
from hero_plugin.integrations.training.device import Amp, autocast
from hero_plugin.integrations.training.load_run import load_model
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Batch, Prediction, Task


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
    def load(
        cls,
        run: RunFolder,
        settings: TrainConfig,
        store: FeatureStore,
        words: Sequence[str],
        tokenize: Tokenize,
        device: torch.device,
        *,
        weights: Path,
        queries: Any = None,
        levels: Sequence[int] = (),
        bridge: bool = False,
        amp: Amp | None = None,
    ) -> RunPredictor:
        """Load the model of a run for sentences of the given words.

        Args:
            run: The run.
            settings: Its settings, with the files that are read now.
            store: The features, of which only the width is asked here.
            words: All words of the sentences.
            tokenize: Splits a sentence into words.
            device: Where it runs.
            weights: The checkpoint.
            queries: Vectors of the queries, for a base that reads a file of them for each.
            levels: As in ``AnswerInputs``.
            bridge: Likewise.
            amp: Half precision; as in the run unless given.

        Raises:
            UserError: Features or word vectors are not of the run's kind, or no word has a vector.
        """
        data: GroundingData = BASES[settings.base].words_only(settings, store, words, tokenize, queries)
        # Only the words of the queries are known yet: their records and videos come later.
        bank = ArrayBank({}, store.dim)
        task, vocabulary, _ = load_model(
            run, weights, data, bank, device, settings=settings, sentences=[words], levels=levels, bridge=bridge
        )
        return cls(task, settings, data, vocabulary, device, amp or settings.amp)

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
