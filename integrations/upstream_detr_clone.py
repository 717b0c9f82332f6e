"""Imports Moment-DETR, QD-DETR and TR-DETR from clones of their authors' repositories, on any device."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from torch import Tensor

from hero_plugin.integrations.launch.shims.focal_loss import sigmoid_focal_loss


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
    with isolated_imports(clone):
        loaded = importlib.import_module(module)
        for other in [sys.modules[name] for name in sys.modules if name.split(".")[0] == module.split(".")[0]]:
            transformer = getattr(other, "Transformer", None)
            if transformer is not None and not hasattr(transformer, "published"):
                transformer.published, transformer.forward = transformer.forward, on_its_device(transformer.forward)
        return loaded


@contextmanager
def isolated_imports(clone: Path) -> Iterator[None]:
    """The clone first on the path, stand-ins for what it needs and this machine may lack; all undone after."""
    path, bytecode, before = list(sys.path), sys.dont_write_bytecode, dict(sys.modules)
    stand_ins = {
        "torchvision": {"ops": SimpleNamespace(focal_loss=SimpleNamespace(sigmoid_focal_loss=sigmoid_focal_loss))},
        "sklearn": {},
        "sklearn.cluster": {"KMeans": None},
        "sklearn.metrics": {"precision_recall_curve": None},
    }
    for name, attributes in stand_ins.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(attributes)
    sys.path.insert(0, str(clone))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in [name for name, module in sys.modules.items() if is_from(clone, module) or name in stand_ins]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})
        importlib.invalidate_caches()


def is_from(clone: Path, module: ModuleType) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(str(clone))


def on_its_device(forward: Any) -> Any:
    """Upstream puts one tensor on CUDA whatever the model is on; this keeps it beside the inputs."""

    @functools.wraps(forward)
    def on_device(self: Any, src: Tensor, *args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(Tensor, "cuda", lambda tensor: tensor.to(src)):
            return forward(self, src, *args, **kwargs)

    return on_device
