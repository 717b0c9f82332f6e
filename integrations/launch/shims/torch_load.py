"""Checkpoints that hold their settings as a pickled object."""

from __future__ import annotations

import functools
import importlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from hero_plugin.integrations.launch.patches import Patch
from hero_plugin.integrations.launch.script import missing
from hero_plugin.integrations.launch.shims import Shim
from hero_plugin.integrations.safe_load import SUPPORTED, load_safely


def _safely(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def loaded(f: Any, map_location: Any = None, pickle_module: Any = None, **options: Any) -> Any:
        if map_location is None and not torch.cuda.is_available():
            map_location = "cpu"  # scripts that give none would stop at a checkpoint that a GPU has written
        return as_saved(load_safely(load, f, map_location=map_location, **options))

    return loaded


def as_saved(checkpoint: Any) -> Any:
    """Lighthouse's settings, as an EasyDict again."""
    settings = checkpoint.get("opt") if isinstance(checkpoint, dict) else None
    if type(settings) is OrderedDict and not missing("easydict"):
        checkpoint["opt"] = importlib.import_module("easydict").EasyDict(settings)
    return checkpoint


TORCH_LOAD = Shim(
    name="torch-load",
    symptom="UnpicklingError: Weights only load failed (argparse.Namespace), or weights_only=False, which runs "
    "whatever code a file holds",
    repair="torch.load takes weights, plain data, argparse.Namespace and EasyDict, and refuses everything else "
    "(before torch 2.6, which has no such choice, it is left as it is)",
    needed=lambda: SUPPORTED,
    patches=(Patch("torch", "load", _safely, "loads weights, plain data and settings, no other object"),),
)
