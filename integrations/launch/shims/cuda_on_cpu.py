"""``.cuda()`` written into the code, on a machine without CUDA."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from hero_plugin.integrations.launch.patches import Patch
from hero_plugin.integrations.launch.shims import Shim


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
