"""Imports from clones of the authors' repositories, which no longer import, or no longer run, on current libraries.

The clones' files stay as they are: what is repaired is repaired in memory. No import leaves a trace in ``sys.modules``.
"""

import functools
import importlib
import importlib.util
import io
import json
import statistics
import sys
import time
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
from hero_plugin.integrations.scoring.qvhighlights import qvhighlights_scores
from hero_plugin.integrations.support import UserError, write_json
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.tables import terminal_table

StandIns = Mapping[str, Mapping[str, Any]]
"""Attributes of the modules that take the place of those that a clone imports and this machine may lack, by name."""

DETR_STAND_INS: StandIns = {
    "torchvision": {"ops": SimpleNamespace(focal_loss=SimpleNamespace(sigmoid_focal_loss=sigmoid_focal_loss))},
    "sklearn": {},
    "sklearn.cluster": {"KMeans": None},
    "sklearn.metrics": {"precision_recall_curve": None},
}
EMB_STAND_INS: StandIns = {
    "transformers": {"AdamW": torch.optim.AdamW, "get_linear_schedule_with_warmup": None},
    "matplotlib": {"pyplot": None},
    "matplotlib.pyplot": {},
    "tqdm": {"tqdm": iter},
}
WIDEST_CHARACTER_KERNEL = 4
OFFICIAL_WORKERS = 8
"""Processes that the official evaluation starts, twelve times over, whatever the machine has."""
EVALUATION = "standalone_eval"

Evaluation = Callable[[list[dict[str, Any]], list[dict[str, Any]]], dict[str, Any]]
"""(submission, annotations) -> the official figures."""


@contextmanager
def clone_imports(clone: Path, stand_ins: StandIns | None = None) -> Iterator[None]:
    """Put the clone first on the import path inside the block; everything is undone after it.

    Meanwhile, modules of other clones that have the same names are out of the way.
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


@functools.lru_cache
def load_upstream_detr(clone: Path, module: str) -> ModuleType:
    """Import the model's ``module`` from a clone of Moment-DETR, QD-DETR, TR-DETR or lighthouse, for any device.

    Raises ``FileNotFoundError`` where there is none.
    """
    clone = clone.resolve()
    if not clone.joinpath(*module.split(".")).with_suffix(".py").is_file():
        raise FileNotFoundError(f"{clone} has no {module.replace('.', '/')}.py: it is not the clone it should be")
    with clone_imports(clone, DETR_STAND_INS):
        loaded = importlib.import_module(module)
        for other in [sys.modules[name] for name in sys.modules if name.split(".")[0] == module.split(".")[0]]:
            transformer = getattr(other, "Transformer", None)
            if transformer is not None and not hasattr(transformer, "published"):
                transformer.published, transformer.forward = transformer.forward, on_its_device(transformer.forward)
        return loaded


def on_its_device(forward: Any) -> Any:
    """Keep the one tensor that upstream puts on CUDA, whatever the model is on, beside the inputs."""

    @functools.wraps(forward)
    def on_device(self: Any, src: Tensor, *args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(Tensor, "cuda", lambda tensor: tensor.to(src)):
            return forward(self, src, *args, **kwargs)

    return on_device


@dataclass(frozen=True)
class UpstreamEMB:
    """What others use of EMB's clone: the class as it runs today, and two of its modules."""

    EMB: type[nn.Module]
    threshold: ModuleType
    runner_utils: ModuleType


def load_upstream_emb(clone: str | Path) -> UpstreamEMB:
    """Import a clone of Raymond-sci/EMB (checked at a81e57a).

    Two methods are repaired: character ids are padded to the widest character kernel (and may be None), and lengths
    reach the LSTM as integers. Raises ``FileNotFoundError`` where ``clone`` has no model/emb.py.
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


def repair(embedding: Any, rnn: Any) -> None:
    """Make EMB's classes run on current PyTorch; their weights and their numbers stay as they are."""
    published_embedding, published_sort = embedding.forward, rnn.sort_batch

    def embed(self: Any, word_ids: Tensor, char_ids: Tensor | None = None) -> Tensor:
        if char_ids is None:
            char_ids = word_ids.new_zeros(*word_ids.shape, WIDEST_CHARACTER_KERNEL)
        missing = max(0, WIDEST_CHARACTER_KERNEL - char_ids.shape[-1])
        return published_embedding(self, word_ids, F.pad(char_ids, (0, missing)))

    def sort_batch(self: Any, seq: Tensor, lengths: Tensor) -> Any:
        seq, sorted_lengths, order = published_sort(self, seq, lengths)
        return seq, [int(length) for length in sorted_lengths], order

    embedding.forward, rnn.sort_batch = embed, sort_batch


@contextmanager
def official_evaluation(clone: str | Path, workers: int = OFFICIAL_WORKERS) -> Iterator[Evaluation]:
    """Yield ``eval_submission`` of a clone of jayleicn/moment_detr, silent; it works inside the block alone.

    There the module stays importable, for its own worker processes; with 1 for ``workers`` it starts none.

    Raises:
        FileNotFoundError: ``clone`` has no standalone_eval/eval.py.
        UserError: scikit-learn, which the script needs, is not installed.
    """
    clone = Path(clone)
    if not (clone / EVALUATION / "eval.py").is_file():
        raise FileNotFoundError(f"{clone} is no clone of Moment-DETR: {EVALUATION}/eval.py is not there")
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("the official script needs scikit-learn: pip install scikit-learn")
    with clone_imports(clone.resolve()):
        module = importlib.import_module(f"{EVALUATION}.eval")

        def fixed(function: Callable[..., Any]) -> Callable[..., Any]:  # whatever the script's own call says
            return lambda *args, **options: function(*args, **{**options, "num_workers": workers})

        for name in ("compute_mr_ap", "compute_hl_ap"):
            setattr(module, name, fixed(getattr(module, name)))

        def evaluate(submission: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
            with redirect_stdout(io.StringIO()):
                return module.eval_submission(submission, annotations, verbose=False)

        yield evaluate


@dataclass
class EvalBenchConfig:
    """Time QVHighlights' evaluation here and by its official script, in turns, and compare every figure."""

    upstream: Path
    """A clone of jayleicn/moment_detr."""
    submission: Path | None = None
    """Predictions; the clone's sample for the validation set unless given."""
    annotations: Path | None = None
    """The clone's validation set unless given."""
    rounds: int = 3
    """How often each one runs."""
    json: Path | None = None
    """Write the numbers here."""


def main(config: EvalBenchConfig) -> None:
    """Measure, print, write."""
    if config.rounds < 1:
        raise UserError(f"--rounds must be at least 1, got {config.rounds}")
    numbers, screen = measure(config), Screen()
    own, rows = statistics.median(numbers["seconds"]["hero-plugin"]), []
    for name, times in numbers["seconds"].items():
        median = statistics.median(times)
        rows.append((name, *(f"{each:.3f} s" for each in (median, min(times), max(times))), f"{median / own:.1f}"))
    header = ("", "median", "fastest", "slowest", "times as long")
    screen.show(terminal_table(header, rows, title=f"evaluation of {numbers['queries']} queries"))
    screen.say(f"largest difference of {numbers['figures']} figures: {numbers['difference']:g}")
    if config.json is not None:
        write_json(config.json, numbers)


def measure(config: EvalBenchConfig) -> dict[str, Any]:
    """Return the seconds of each way, one per round, and the largest difference of any figure from ours."""
    if not (config.upstream / EVALUATION / "eval.py").is_file():
        raise UserError(
            f"--upstream {config.upstream}: no clone of moment_detr, as {EVALUATION}/eval.py is not there; name the "
            "folder of the clone itself"
        )
    submission = _lines(config.submission or config.upstream / "standalone_eval" / "sample_val_preds.jsonl")
    annotations = _lines(config.annotations or config.upstream / "data" / "highlight_val_release.jsonl")
    seconds: dict[str, list[float]] = {}
    difference, own = 0.0, _flat(qvhighlights_scores(submission, annotations))

    def run(name: str, evaluate: Evaluation) -> None:
        nonlocal difference
        start = time.perf_counter()
        figures = evaluate(submission, annotations)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        difference = max(difference, *(abs(value - own[key]) for key, value in _flat(figures).items()))

    for _ in range(config.rounds):
        for workers in (OFFICIAL_WORKERS, 1):
            with official_evaluation(config.upstream, workers) as evaluate:
                run(f"official, {workers} process{'es' * (workers > 1)}", evaluate)
        run("hero-plugin", qvhighlights_scores)
    return {"queries": len(submission), "figures": len(own), "difference": difference, "seconds": seconds}


def _lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in figures.items():
        flat.update(_flat(value, f"{prefix}{key} ") if isinstance(value, Mapping) else {prefix + key: value})
    return flat
