"""How outputs are compared: by name, value and type, with what rounding explains."""

from collections.abc import Collection, Iterable
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor

from hero_plugin.aggregation import MASKED
from hero_plugin.levels import tensors_of
from hero_plugin.tensors import at_least_float32


class Fault(Exception):
    """What a check found wrong, and by how much."""

    def __init__(self, message: str, figure: float | None = None) -> None:
        super().__init__(message)
        self.figure = figure


def by_name(outputs: Any) -> dict[str, list[Tensor]]:
    """Return the tensors of each name."""
    found: dict[str, list[Tensor]] = {}
    for name, tensor in tensors_of(outputs):
        found.setdefault(name, []).append(tensor)
    return found


def rounding(tensors: Iterable[Tensor]) -> float:
    """Return by how much of its largest value an output may differ through rounding, in the coarsest precision."""
    known = {torch.float64: 1e-7, torch.float32: 1e-4}
    return max((known.get(tensor.dtype, 3e-2) for tensor in tensors if tensor.is_floating_point()), default=1e-4)


def distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference as a share of the largest value, but of 0.1 at least; padding's do not count."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return inf
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else inf
    one, other = at_least_float32(one.detach()), at_least_float32(other.detach())
    same = (one == other) | (one.isnan() & other.isnan()) | ((one <= MASKED) & (other <= MASKED))
    if same.all():
        return 0.0
    largest = one.masked_fill(~one.isfinite() | (one <= MASKED), 0.0).abs().max().clamp(min=0.1)
    gap = float((one - other).abs().masked_fill(same, 0.0).max() / largest)
    return inf if isnan(gap) else gap


def gaps(expected: Any, found: Any, edges: Collection[str] = ()) -> dict[str, float]:
    """Return the distance of the tensors of each name, of several tensors the largest; infinite where one is missing.

    Args:
        expected: outputs of any structure.
        found: others; tensors of one name are compared in order.
        edges: names of outputs (N, B, ...) whose first and last samples do not count.
    """
    ours, theirs = by_name(expected), by_name(found)
    apart: dict[str, float] = {}
    for name in {**ours, **theirs}:
        one, other = ours.get(name, []), theirs.get(name, [])
        if name in edges:
            one, other = ([x[:, 1:-1] if x.ndim > 1 else x for x in each] for each in (one, other))
        alike = len(one) == len(other)
        apart[name] = max((distance(*pair) for pair in zip(one, other, strict=True)), default=0.0) if alike else inf
    return apart


def agree(expected: Any, found: Any, allowed: float, edges: Collection[str] = ()) -> float:
    """Return the largest of the ``gaps``.

    Raises:
        Fault: one is larger than ``allowed``, or the types differ; the message names the outputs.
    """
    if type(expected) is not type(found):
        raise Fault(f"the base returns a {type(expected).__name__}, here it is a {type(found).__name__}")
    apart = gaps(expected, found, edges)
    wrong = sorted((name for name, gap in apart.items() if gap > allowed), key=lambda name: -apart[name])
    if not wrong:
        return max(apart.values(), default=0.0)
    ours, theirs = by_name(expected), by_name(found)
    told = [f"{name!r} {_difference(ours.get(name, []), theirs.get(name, []))}" for name in wrong[:3]]
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    raise Fault(", ".join(told) + more, apart[wrong[0]])


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> str:
    if not theirs or not ours:
        return "is missing" if ours else "is no output of the base"
    if len(ours) != len(theirs):
        return f"has {len(theirs)} tensors instead of {len(ours)}"
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"is {tuple(other.shape)} {other.dtype} instead of {tuple(one.shape)} {one.dtype}"
    return "differs"


def looks_like(levels: Tensor, allowed: float) -> str:
    """Return which kind the values of an output (N, B, ...) look like; it may have another all the same."""
    if levels.ndim < 2 or all(distance(levels[0], level) <= allowed for level in levels[1:]):
        return "shared"
    if not levels.is_floating_point():
        return "different"
    if levels.min() >= 0 and levels.max() <= 1:
        return "probability"
    norms = levels.norm(dim=-1)
    return "direction" if levels.ndim > 2 and torch.allclose(norms, torch.ones_like(norms), atol=1e-3) else "logits"
