"""The most memory that a step holds at once: model, gradients, optimizer, inputs, and all it needs on the way."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from hero_plugin.integrations.bench.timing import Step, wait


def peak_memory(step: Step, held: Iterator[Tensor], device: torch.device) -> int:
    """Bytes, without those of other models on the device.

    held: what the step has before it begins, one after the other: who keeps them here keeps the step from freeing them.
    """
    if device.type == "cuda":
        gc.collect()
        return peak_allocated(step, held, device)
    with collected_later(), LiveBytes(held) as live:
        step()
    return live.peak


def peak_allocated(step: Step, held: Iterator[Tensor], device: torch.device) -> int:
    """On a CUDA device, as its allocator counts."""
    wait(device)
    own = own_bytes(held)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    wait(device)
    return own + torch.cuda.max_memory_allocated(device) - before


@contextmanager
def collected_later() -> Iterator[None]:
    """No garbage collection meanwhile: when it comes would decide what is alive."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every tensor that is alive, what autograd keeps for the backward included.

    Exact and the same on every run: tensors are counted as operators return them, storage by storage, until their
    storage is gone. What an operator needs inside itself alone does not count.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}
        for tensor in held:
            self.add(tensor)

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, if it is not counted already, until it is gone."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: Any) -> None:
            self.live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = operator(*args, **(kwargs or {}))
        for leaf in tree_flatten(returned)[0]:
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return returned


def own_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each storage once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
