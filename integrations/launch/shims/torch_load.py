"""Checkpoints that hold their settings as a pickled object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from hero_plugin.integrations.launch.patches import Patch
from hero_plugin.integrations.launch.shims import Shim
from hero_plugin.integrations.safe_load import load_safely, supported


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
