"""Imports EMB from a clone of its authors' repository, which no longer imports on current libraries."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

PACKAGES = ("model", "util")
WIDEST_CHARACTER_KERNEL = 4


@dataclass(frozen=True)
class UpstreamEMB:
    """What of the clone others use: the class as it runs today, and two of its modules."""

    EMB: type[nn.Module]
    threshold: ModuleType
    runner_utils: ModuleType


def load_upstream_emb(clone: str | Path) -> UpstreamEMB:
    """Import a clone of Raymond-sci/EMB (checked at a81e57a) without leaving a trace in `sys.modules`.

    Its files stay as they are; the class returned is a subclass with two repairs: character ids are padded
    to the widest character kernel, and lengths reach the LSTM as integers.

    Raises:
        FileNotFoundError: `clone` has no model/emb.py.
    """
    clone = Path(clone)
    if not (clone / "model" / "emb.py").is_file():
        raise FileNotFoundError(f"{clone} is no clone of EMB: model/emb.py is not there")
    with isolated_imports(clone):
        emb = importlib.import_module("model.emb")
        predictor = importlib.import_module("model.predictor")
        return UpstreamEMB(
            EMB=repaired(emb.EMB, predictor.GeneralRNNBlock),
            threshold=importlib.import_module("model.threshold"),
            runner_utils=importlib.import_module("util.runner_utils"),
        )


@contextmanager
def isolated_imports(clone: Path) -> Iterator[None]:
    """The clone first on the path, stand-ins for what it needs and this machine may lack; all undone after."""
    saved_path, saved_bytecode = list(sys.path), sys.dont_write_bytecode
    stand_ins = {
        "transformers": {"AdamW": torch.optim.AdamW, "get_linear_schedule_with_warmup": None},
        "matplotlib": {"pyplot": None},
        "matplotlib.pyplot": {},
        "tqdm": {"tqdm": iter},
    }
    hidden = {name: module for name, module in sys.modules.items() if belongs(name, (*PACKAGES, *stand_ins))}
    for name in hidden:
        del sys.modules[name]
    for name, attributes in stand_ins.items():
        sys.modules[name] = ModuleType(name)
        for attribute, value in attributes.items():
            setattr(sys.modules[name], attribute, value)
    sys.path.insert(0, str(clone))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = saved_path, saved_bytecode
        for name in [name for name in sys.modules if belongs(name, (*PACKAGES, *stand_ins))]:
            del sys.modules[name]
        sys.modules.update(hidden)
        importlib.invalidate_caches()


def belongs(name: str, packages: tuple[str, ...]) -> bool:
    return name.split(".")[0] in packages


def repaired(emb: type[nn.Module], rnn: type[nn.Module]) -> type[nn.Module]:
    """A subclass of upstream's EMB, of the same name, that runs on current PyTorch."""
    published_sort = rnn.sort_batch

    def sort_batch(self: Any, seq: torch.Tensor, lengths: torch.Tensor) -> Any:
        seq, sorted_lengths, order = published_sort(self, seq, lengths)
        return seq, [int(length) for length in sorted_lengths], order

    rnn.sort_batch = sort_batch

    class EMB(emb):
        def forward(self, word_ids: Any, char_ids: Any, *args: Any, **kwargs: Any) -> Any:
            if char_ids is None:
                char_ids = word_ids.new_zeros(*word_ids.shape, WIDEST_CHARACTER_KERNEL)
            missing = max(0, WIDEST_CHARACTER_KERNEL - char_ids.shape[-1])
            return super().forward(word_ids, F.pad(char_ids, (0, missing)), *args, **kwargs)

    return EMB
