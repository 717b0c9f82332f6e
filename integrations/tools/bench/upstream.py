"""Imports EMB from a clone of its authors' repository, which no longer imports on current libraries."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.detr.criterion import sigmoid_focal_loss
from hero_plugin.integrations.support.errors import UserError

# Imports from a clone of another repository that leave no trace in ``sys.modules``.


@contextmanager
def clone_imports(clone: Path, stand_ins: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[None]:
    """Put the clone first on the import path inside the block; everything is undone after it.

    Meanwhile, modules of other clones that have the same names are out of the way.

    Args:
        clone: the folder.
        stand_ins: attributes of each module that takes the place of one that the clone imports and this machine may
            lack, by the module's name.
    """
    stand_ins = stand_ins or {}
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    theirs = {entry.stem for entry in clone.iterdir()} | {name.partition(".")[0] for name in stand_ins}

    def take_out() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in theirs}

    hidden = take_out()
    for name, attributes in stand_ins.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(attributes)
    sys.path.insert(0, str(clone))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        take_out()
        sys.modules.update(hidden)
        importlib.invalidate_caches()


# Imports Moment-DETR, QD-DETR and TR-DETR from clones of their authors' repositories, on any device.


STAND_INS: dict[str, dict[str, Any]] = {
    "torchvision": {"ops": SimpleNamespace(focal_loss=SimpleNamespace(sigmoid_focal_loss=sigmoid_focal_loss))},
    "sklearn": {},
    "sklearn.cluster": {"KMeans": None},
    "sklearn.metrics": {"precision_recall_curve": None},
}


@functools.lru_cache
def load_upstream_detr(clone: Path, module: str) -> ModuleType:
    """Import ``module`` from a clone, or from lighthouse's, without leaving a trace in ``sys.modules``.

    The clone's files stay as they are. In memory, their one ``.cuda()`` keeps a tensor beside the inputs.

    Raises:
        FileNotFoundError: the clone has no such module.
    """
    clone = clone.resolve()
    if not clone.joinpath(*module.split(".")).with_suffix(".py").is_file():
        raise FileNotFoundError(f"{clone} has no {module.replace('.', '/')}.py: it is not the clone it should be")
    with clone_imports(clone, STAND_INS):
        loaded = importlib.import_module(module)
        for other in [sys.modules[name] for name in sys.modules if name.split(".")[0] == module.split(".")[0]]:
            transformer = getattr(other, "Transformer", None)
            if transformer is not None and not hasattr(transformer, "published"):
                transformer.published, transformer.forward = transformer.forward, on_its_device(transformer.forward)
        return loaded


def on_its_device(forward: Any) -> Any:
    """Upstream puts one tensor on CUDA whatever the model is on; this keeps it beside the inputs."""

    @functools.wraps(forward)
    def on_device(self: Any, src: Tensor, *args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(Tensor, "cuda", lambda tensor: tensor.to(src)):
            return forward(self, src, *args, **kwargs)

    return on_device


EMB_STAND_INS: dict[str, dict[str, Any]] = {
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
    with clone_imports(clone, EMB_STAND_INS):
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


# The official evaluation of QVHighlights, imported from a clone of Moment-DETR to compare with.


OFFICIAL_WORKERS = 8
"""Processes that the official script starts, twelve times over, whatever the machine has."""
PACKAGE = "standalone_eval"

Evaluation = Callable[[list[dict[str, Any]], list[dict[str, Any]]], dict[str, Any]]
"""(submission, annotations) -> the official figures."""


@contextmanager
def official_evaluation(clone: str | Path, workers: int = OFFICIAL_WORKERS) -> Iterator[Evaluation]:
    """Yield ``eval_submission`` of a clone of jayleicn/moment_detr, silent; it works inside the block alone.

    The clone's files stay as they are. The module stays importable inside the block, for the script's own
    worker processes, and is forgotten after. workers: 1 starts none.

    Raises:
        FileNotFoundError: `clone` has no standalone_eval/eval.py.
        UserError: scikit-learn, which the script needs, is not installed.
    """
    clone = Path(clone)
    if not (clone / PACKAGE / "eval.py").is_file():
        raise FileNotFoundError(f"{clone} is no clone of Moment-DETR: {PACKAGE}/eval.py is not there")
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("the official script needs scikit-learn: pip install scikit-learn")
    with clone_imports(clone.resolve()):
        module = importlib.import_module(f"{PACKAGE}.eval")
        for name in ("compute_mr_ap", "compute_hl_ap"):
            setattr(module, name, _with_workers(getattr(module, name), workers))

        def evaluate(submission: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
            with redirect_stdout(io.StringIO()):
                return module.eval_submission(submission, annotations, verbose=False)

        yield evaluate


def _with_workers(function: Callable[..., Any], workers: int) -> Callable[..., Any]:
    return lambda *args, **options: function(*args, **{**options, "num_workers": workers})
