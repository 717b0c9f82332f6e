"""Imports EMB from a clone of its authors' repository, which no longer imports on current libraries."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hero_plugin.integrations.clone_imports import clone_imports

STAND_INS: dict[str, dict[str, Any]] = {
    "transformers": {"AdamW": torch.optim.AdamW, "get_linear_schedule_with_warmup": None},
    "matplotlib": {"pyplot": None},
    "matplotlib.pyplot": {},
    "tqdm": {"tqdm": iter},
}
WIDEST_CHARACTER_KERNEL = 4


@dataclass(frozen=True)
class UpstreamEMB:
    """What of the clone others use: the class as it runs today, and two of its modules."""

    EMB: type[nn.Module]
    threshold: ModuleType
    runner_utils: ModuleType


def load_upstream_emb(clone: str | Path) -> UpstreamEMB:
    """Import a clone of Raymond-sci/EMB (checked at a81e57a) without leaving a trace in `sys.modules`.

    Its files stay as they are. Two methods are repaired in memory: character ids are padded to the widest
    character kernel (and may be None), and lengths reach the LSTM as integers.

    Raises:
        FileNotFoundError: `clone` has no model/emb.py.
    """
    clone = Path(clone)
    if not (clone / "model" / "emb.py").is_file():
        raise FileNotFoundError(f"{clone} is no clone of EMB: model/emb.py is not there")
    with clone_imports(clone, STAND_INS):
        layers, predictor = importlib.import_module("model.layers"), importlib.import_module("model.predictor")
        repair(layers.Embedding, predictor.GeneralRNNBlock)
        return UpstreamEMB(
            EMB=importlib.import_module("model.emb").EMB,
            threshold=importlib.import_module("model.threshold"),
            runner_utils=importlib.import_module("util.runner_utils"),
        )


def repair(embedding: type[nn.Module], rnn: type[nn.Module]) -> None:
    """Make upstream's classes run on current PyTorch; their weights and their numbers stay as they are."""
    published_embedding, published_sort = embedding.forward, rnn.sort_batch

    def embed(self: Any, word_ids: torch.Tensor, char_ids: torch.Tensor | None = None) -> torch.Tensor:
        if char_ids is None:
            char_ids = word_ids.new_zeros(*word_ids.shape, WIDEST_CHARACTER_KERNEL)
        missing = max(0, WIDEST_CHARACTER_KERNEL - char_ids.shape[-1])
        return published_embedding(self, word_ids, F.pad(char_ids, (0, missing)))

    def sort_batch(self: Any, seq: torch.Tensor, lengths: torch.Tensor) -> Any:
        seq, sorted_lengths, order = published_sort(self, seq, lengths)
        return seq, [int(length) for length in sorted_lengths], order

    embedding.forward, rnn.sort_batch = embed, sort_batch
