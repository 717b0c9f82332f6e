"""``transformers`` without ``AdamW``, which later versions dropped, or without ``transformers`` at all."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from hero_plugin.adapters.detr.criterion import sigmoid_focal_loss
from hero_plugin.integrations.tools.launch.patches import Patch
from hero_plugin.integrations.tools.launch.run import missing
from hero_plugin.integrations.training.checkpoints import load_safely, supported
from hero_plugin.integrations.training.optim import linear_decay

# What keeps old code running on today's libraries: each shim is small, named, and applied only where it is needed.


@dataclass(frozen=True)
class Shim:
    """A fault of old code on current libraries, and its repair."""

    name: str
    symptom: str
    """What happens without it."""
    repair: str
    """What it does about it."""
    needed: Callable[[], bool]
    """Whether the fault is present on this machine."""
    patches: tuple[Patch, ...] = ()
    stand_ins: Callable[[], dict[str, ModuleType]] = field(default=dict)
    """Modules that take the place of missing ones, by name."""


def present(shims: Sequence[Shim]) -> list[Shim]:
    """Those whose fault is present here."""
    return [shim for shim in shims if shim.needed()]


# ``.cuda()`` written into the code, on a machine without CUDA.


def _stays(cuda: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(cuda)
    def stays(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self

    return stays


def without_cuda() -> bool:
    return not torch.cuda.is_available()


CUDA_ON_CPU = Shim(
    name="cuda-on-cpu",
    symptom="AssertionError: Torch not compiled with CUDA enabled, from a .cuda() in transformer.py",
    repair="Tensor.cuda() leaves a tensor where it is",
    needed=without_cuda,
    patches=(Patch("torch", "Tensor.cuda", _stays, "leaves tensors on the CPU"),),
)


# A device written into a configuration, with no flag to change it.


MODULES = ("config", "training.config")
"""Lighthouse's training script and its evaluation import the same file under these two names."""


def _on_cpu(parse: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(parse)
    def parsed(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = parse(self, *args, **kwargs)
        if str(self.opt.device).startswith("cuda"):
            self.opt.device = "cpu"
        return result

    return parsed


CONFIGURED_DEVICE = Shim(
    name="configured-device",
    symptom="configs/base.yml says device: 'cuda', no flag changes it, and inputs cannot be moved there",
    repair="the device is cpu where there is no CUDA",
    needed=without_cuda,
    patches=tuple(Patch(module, "BaseOptions.parse", _on_cpu, "device: cpu") for module in MODULES),
)


# Lengths of sequences that come as a list of float tensors.


def _whole(pack: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(pack)
    def packed(input: torch.Tensor, lengths: Any, *args: Any, **kwargs: Any) -> Any:
        return pack(input, torch.tensor([int(length) for length in lengths]), *args, **kwargs)

    return packed


def _lengths_needed() -> bool:
    try:
        pack_padded_sequence(torch.zeros(1, 1, 1), [torch.tensor(1.0)], batch_first=True)
    except (RuntimeError, TypeError):
        return True
    return False


FLOAT_LENGTHS = Shim(
    name="float-lengths",
    symptom="TypeError: only integer tensors of a single element can be converted to an index, in model/predictor.py",
    repair="the lengths of word sequences, sums of a float mask, are made whole before they are packed",
    needed=_lengths_needed,
    patches=(Patch("model.predictor", "pack_padded_sequence", _whole, "takes lengths that are floats"),),
)


# ``torchvision``, of which one loss is used.


def _focal_needed() -> bool:
    try:
        importlib.import_module("torchvision.ops.focal_loss")
    except (ImportError, RuntimeError):  # RuntimeError: one that was built for another torch
        return True
    return False


def _focal_module() -> dict[str, ModuleType]:
    vision, ops, focal = (ModuleType(name) for name in ("torchvision", "torchvision.ops", "torchvision.ops.focal_loss"))
    focal.sigmoid_focal_loss = ops.sigmoid_focal_loss = sigmoid_focal_loss  # type: ignore[attr-defined]
    vision.ops, ops.focal_loss = ops, focal  # type: ignore[attr-defined]
    return {module.__name__: module for module in (vision, ops, focal)}


FOCAL_LOSS = Shim(
    name="focal-loss",
    symptom="ModuleNotFoundError: No module named 'torchvision', or one built for another torch, for one loss function",
    repair="a stand-in for torchvision that has sigmoid_focal_loss alone",
    needed=_focal_needed,
    stand_ins=_focal_module,
)


# Worker processes that start afresh, without what is changed at run time.


def _forking(context: Any) -> Any:
    return multiprocessing.get_context("fork")


FORK = Shim(
    name="fork",
    symptom="from Python 3.14 on, Linux starts a DataLoader's workers afresh: they import the old code without the "
    "other shims",
    repair="workers are forked, as they were when these repositories were written",
    needed=lambda: sys.platform == "linux" and sys.version_info >= (3, 14),
    patches=(Patch("multiprocessing.context", "_default_context._actual_context", _forking, "forks worker processes"),),
)


# NLTK's sentence splitter, whose data has to be downloaded, for queries that are single sentences.


def _one_sentence(tokenize: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(tokenize)
    def tokenized(text: str, language: str = "english", preserve_line: bool = True) -> list[str]:
        return tokenize(text, language=language, preserve_line=True)

    return tokenized


def _punkt_needed() -> bool:
    if missing("nltk"):
        return False
    try:
        importlib.import_module("nltk").word_tokenize("a")
    except LookupError:
        return True
    return False


PUNKT = Shim(
    name="punkt",
    symptom="LookupError: Resource punkt_tab not found, while EMB makes its data set",
    repair="a query is one sentence: only what splits texts into sentences is left out, words are NLTK's own. "
    "Tokens differ where a period stands inside a query",
    needed=_punkt_needed,
    patches=(Patch("util.data_gen", "word_tokenize", _one_sentence, "takes a query as one sentence"),),
)


# Checkpoints that hold their settings as a pickled object.


def _safely(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def loaded(f: Any, map_location: Any = None, pickle_module: Any = None, **options: Any) -> Any:
        if map_location is None and not torch.cuda.is_available():
            map_location = "cpu"  # scripts that give none would stop at a checkpoint that a GPU has written
        return load_safely(load, f, map_location=map_location, **options)

    return loaded


TORCH_LOAD = Shim(
    name="torch-load",
    symptom="UnpicklingError: Weights only load failed (argparse.Namespace), or weights_only=False, which runs "
    "whatever code a file holds",
    repair="torch.load takes weights, plain data, argparse.Namespace and EasyDict, and refuses everything else "
    "(before torch 2.4, which has no such choice, it is left as it is)",
    needed=supported,
    patches=(Patch("torch", "load", _safely, "loads weights, plain data and settings, no other object"),),
)


class AdamW(torch.optim.AdamW):
    """torch's, with the defaults that transformers' had (``eps=1e-6``, no weight decay)."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def get_linear_schedule_with_warmup(
    optimizer: torch.optim.Optimizer, num_warmup_steps: float, num_training_steps: int, last_epoch: int = -1
) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate rises from 0, then falls straight to 0."""
    warmup = round(num_warmup_steps)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_decay(step, num_training_steps, warmup), last_epoch
    )


def _adamw_needed() -> bool:
    return missing("transformers") or not hasattr(importlib.import_module("transformers"), "AdamW")


def _adamw_module() -> dict[str, ModuleType]:
    stand_in = ModuleType("transformers")
    stand_in.AdamW = AdamW  # type: ignore[attr-defined]
    stand_in.get_linear_schedule_with_warmup = get_linear_schedule_with_warmup  # type: ignore[attr-defined]
    return {"transformers": stand_in}


TRANSFORMERS_ADAMW = Shim(
    name="transformers-adamw",
    symptom="ImportError: cannot import name 'AdamW' from 'transformers', whose later versions dropped it",
    repair="a stand-in for transformers, with torch's AdamW under the same defaults and the linear schedule",
    needed=_adamw_needed,
    stand_ins=_adamw_module,
)
