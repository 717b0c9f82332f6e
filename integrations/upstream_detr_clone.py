"""Imports Moment-DETR, QD-DETR and TR-DETR from clones of their authors' repositories, on any device."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from torch import Tensor

from hero_plugin.adapters.detr.classification import sigmoid_focal_loss
from hero_plugin.integrations.clone_imports import clone_imports

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
