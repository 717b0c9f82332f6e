"""What a step does, in numbers that do not depend on the machine's mood."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import torch
from packaging.version import Version
from torch.profiler import ProfilerActivity, profile
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from hero_plugin.integrations.bench.timing import Step, wait
from hero_plugin.integrations.errors import UserError

aten = torch.ops.aten
OLDEST = "2.4"
"""Before, torch called its formulas in another way."""


class Operations(TorchDispatchMode):
    """Counts the operators of forward, backward and optimizer as they reach the device's code, and their FLOPs.

    FLOPs are those of matrix products, convolutions, attention and recurrent layers by torch's formulas (a
    multiplication and an addition are two); elementwise work does not count. torch's own ``FlopCounterMode`` is not
    used: it hooks every module and fails where one takes a parameter as its input without gradients, as Moment-DETR's
    decoder does in inference.

    Raises:
        UserError: this torch is too old.
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
        """Operators."""
        return sum(self.counts.values())

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = operator(*args, **(kwargs or {}))
        self.counts[str(operator)] += 1
        formula = self._formulas.get(getattr(operator, "_overloadpacket", None))
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=returned)
        return returned


def missing_formulas() -> dict[Any, Any]:
    """FLOPs of operators that torch's own counter passes over or counts wrongly, of those that this torch has."""
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
    """A formula of the arguments' shapes, called as torch's registry calls its own."""

    def of_tensors(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        return formula(*tree_map(lambda each: each.shape if isinstance(each, torch.Tensor) else each, args))

    return of_tensors


def convolution_gradients(grad: Any, inputs: Any, weight: Any, *settings: Any) -> int:
    """The gradients of inputs and weights cost a forward each; torch's formula forgets the groups of the weights'."""
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, wanted = settings
    return sum(wanted[:2]) * flop_counter.conv_flop_count(inputs, weight, grad, transposed)


def fused_layer(inputs: Any, from_input: Any, from_state: Any, *_: Any) -> int:
    """One direction of one layer: (positions, batch, width) and two weight matrices."""
    return 2 * prod(inputs[:-1]) * (prod(from_input) + prod(from_state))


def cudnn_layers(inputs: Any, weights: Any, *_: Any) -> int:
    """Every layer and direction; packed inputs are (positions, width)."""
    return 2 * prod(inputs[:-1]) * sum(prod(shape) for shape in weights if len(shape) == 2)


def count_kernels(step: Step, device: torch.device) -> int:
    """Kernels that a step launches on a CUDA device."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
        wait(device)
    return sum(event.count for event in recorded.key_averages() if "LaunchKernel" in event.key)
