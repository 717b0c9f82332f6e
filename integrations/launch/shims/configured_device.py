"""A device written into a configuration, with no flag to change it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hero_plugin.integrations.launch.patches import Patch
from hero_plugin.integrations.launch.shims import Shim
from hero_plugin.integrations.launch.shims.cuda_on_cpu import without_cuda

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
