"""The official evaluation of QVHighlights, imported from a clone of Moment-DETR to compare with."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from hero_plugin.integrations.clone_imports import clone_imports
from hero_plugin.integrations.errors import UserError

__all__ = ["OFFICIAL_WORKERS", "Evaluation", "official_evaluation"]

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
