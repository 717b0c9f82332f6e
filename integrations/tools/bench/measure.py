"""Measurement of a comparison: FLOPs, operators, kernels and memory of each variant, then their time in turns."""

import gc
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from hero_plugin import HeroConfig
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.bench import models
from hero_plugin.integrations.tools.bench.models import Setting, Sizes, Step, Variant
from hero_plugin.integrations.training.distributed import keep_freed_memory

Clock = Literal["wall", "processor"]


class Quartiles(NamedTuple):
    """A median and the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """Compute them."""
        return cls(*(float(value) for value in np.percentile(values, (25, 50, 75))))

    @classmethod
    def of_ratio(cls, over: Sequence[float], under: Sequence[float]) -> "Quartiles":
        """Compute those of ratios within a turn: a machine that slows down slows both."""
        return cls.of([one / other for one, other in zip(over, under, strict=True)])


@dataclass
class Measurement:
    """One variant in one setting."""

    setting: Setting
    model: Variant
    sizes: Sizes
    parameters: int
    flops: int
    operators: int
    kernels: int | None
    """Launched on a CUDA device; None elsewhere."""
    memory: int
    """Bytes, the most at once."""
    seconds: list[float] = field(default_factory=list)

    @property
    def time(self) -> Quartiles | None:
        """Seconds of a step, where it was timed."""
        return Quartiles.of(self.seconds) if self.seconds else None


def compare(
    setting: Setting,
    variants: Sequence[Variant],
    sizes: Sizes,
    *,
    steps: int = 20,
    warmup: int = 3,
    seed: int = 0,
    clock: Clock = "wall",
    compile: bool = False,
    hero: HeroConfig | None = None,
    clones: Path | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """Measure variants in one setting in one run.

    ``hero`` has the choices that the variants do not make themselves, ``clones`` is the folder of upstream's clones.
    After ``warmup`` turns, ``steps`` of each are timed, of compiled models with ``compile``; FLOPs, operators and
    memory are the eager model's. ``after_step`` is called once per variant, and after each of its steps.
    """
    device = torch.device(setting.device)
    keep_freed_memory(device)  # as the training scripts do
    workloads = models.workloads_of(setting, variants, sizes, seed, hero or HeroConfig(), clones)
    measured = []
    for variant, workload in workloads.items():
        step = workload.step()
        step()  # the optimizer's state comes with the first step
        memory = peak_memory(step, workload.held(), device)
        with Operations() as operations:
            step()
        parameters = sum(parameter.numel() for parameter in workload.task.model.parameters())
        kernels = count_kernels(step, device) if device.type == "cuda" else None
        counts = (parameters, operations.flops, operations.total, kernels, memory)
        measured.append(Measurement(setting, variant, sizes, *counts))
        after_step()
    if steps:
        timed = [each.step(torch.compile(each.task.model) if compile else None) for each in workloads.values()]
        seconds = time_in_turns(timed, warmup, steps, device, clock, after_step)
        for measurement, times in zip(measured, seconds, strict=True):
            measurement.seconds = times
    return measured


def time_in_turns(
    steps: Sequence[Step],
    warmup: int,
    turns: int,
    device: torch.device,
    clock: Clock = "wall",
    after_step: Callable[[], None] = lambda: None,
) -> list[list[float]]:
    """Time steps in turns, so that what else the machine does hits all alike: in each turn every step runs once.

    The first ``warmup`` turns do not count. The "processor" clock counts the time of this process on all its threads,
    which other programs disturb less. ``after_step`` is called after every step.

    Returns:
        Seconds of each step, one per turn that counts.
    """
    now = {"wall": time.perf_counter, "processor": time.process_time}[clock]
    seconds: list[list[float]] = [[] for _ in steps]
    for turn in range(warmup + turns):
        for times, step in zip(seconds, steps, strict=True):
            wait(device)
            began = now()
            step()
            wait(device)
            if turn >= warmup:
                times.append(now() - began)
            after_step()
    return seconds


def wait(device: torch.device) -> None:
    """Wait until everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


aten = torch.ops.aten
OLDEST = "2.4"
"""Before, torch called its formulas in another way."""


class Operations(TorchDispatchMode):
    """Counts the operators of forward, backward and optimizer as they reach the device's code, and their FLOPs.

    FLOPs are those of matrix products, convolutions, attention and recurrent layers by torch's formulas (a
    multiplication and an addition are two); elementwise work does not count. torch's own ``FlopCounterMode`` is not
    used: it hooks every module and fails where one takes a parameter as its input without gradients, as Moment-DETR's
    decoder does in inference. A torch that is too old for this raises ``UserError``.
    """

    def __init__(self) -> None:
        if Version(OLDEST) > Version(torch.__version__):
            raise UserError(f"counting FLOPs needs torch {OLDEST} or later, found {torch.__version__}")
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.flops = 0
        self._formulas = {**flop_counter.flop_registry, **missing_formulas()}

    @property
    def total(self) -> int:
        """How many operators ran."""
        return sum(self.counts.values())

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = operator(*args, **(kwargs or {}))
        self.counts[str(operator)] += 1
        formula = self._formulas.get(getattr(operator, "_overloadpacket", None))
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=returned)
        return returned


def missing_formulas() -> dict[Any, Any]:
    """Return FLOPs of the operators that torch's own counter passes over or counts wrongly."""
    known = {
        "convolution_backward": convolution_gradients,
        "_scaled_dot_product_flash_attention_for_cpu": lambda q, k, v, *_: flop_counter.sdpa_flop_count(q, k, v),
        "_scaled_dot_product_flash_attention_for_cpu_backward": lambda g, q, k, v, *_: (
            flop_counter.sdpa_backward_flop_count(g, q, k, v)
        ),
        "mkldnn_rnn_layer": fused_layer,
        "mkldnn_rnn_layer_backward": lambda *shapes: 2 * fused_layer(*shapes),
        "_cudnn_rnn": cudnn_layers,
        "_cudnn_rnn_backward": lambda *shapes: 2 * cudnn_layers(*shapes),
    }
    return {getattr(aten, name): of_shapes(formula) for name, formula in known.items() if hasattr(aten, name)}


def of_shapes(formula: Any) -> Any:
    """Call a formula of the arguments' shapes as torch's registry calls its own."""

    def of_tensors(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        return formula(*tree_map(lambda each: each.shape if isinstance(each, torch.Tensor) else each, args))

    return of_tensors


def convolution_gradients(grad: Any, inputs: Any, weight: Any, *settings: Any) -> int:
    """Count one forward per gradient, of inputs and weights; torch's formula forgets the groups of the weights'."""
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, wanted = settings
    return sum(wanted[:2]) * flop_counter.conv_flop_count(inputs, weight, grad, transposed)


def fused_layer(inputs: Any, from_input: Any, from_state: Any, *_: Any) -> int:
    """Count one direction of one layer: inputs (positions, batch, width) and two weight matrices."""
    return 2 * prod(inputs[:-1]) * (prod(from_input) + prod(from_state))


def cudnn_layers(inputs: Any, weights: Any, *_: Any) -> int:
    """Count every layer and direction; packed inputs are (positions, width)."""
    return 2 * prod(inputs[:-1]) * sum(prod(shape) for shape in weights if len(shape) == 2)


def count_kernels(step: Step, device: torch.device) -> int:
    """Count the kernels that a step launches on a CUDA device."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
        wait(device)
    return sum(event.count for event in recorded.key_averages() if "LaunchKernel" in event.key)


def peak_memory(step: Step, held: Iterator[Tensor], device: torch.device) -> int:
    """Return the most bytes that a step holds at once, without those of other models on the device.

    That is the model, gradients, optimizer, inputs, and all that it needs on the way. ``held`` yields what is there
    before the step, one tensor after the other: a list of them here would keep the step from freeing them.
    """
    gc.collect()
    if device.type == "cuda":
        wait(device)
        own, before = LiveBytes(held).live, torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        wait(device)
        return own + torch.cuda.max_memory_allocated(device) - before
    enabled = gc.isenabled()
    gc.disable()  # when a collection comes would decide what is alive
    try:
        with LiveBytes(held) as live:
            step()
    finally:
        if enabled:
            gc.enable()
    return live.peak


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
        for leaf in tree_leaves(returned):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return returned
