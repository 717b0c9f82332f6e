"""Learnable weighted aggregation of the levels' outputs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.levels import map_tensors
from hero_plugin.tensors import Linear, at_least_float32, is_compiling

Kind = Literal["logits", "probability", "direction", "shared", "whole"]

# A logit at or below it marks padding. Bases write -1e30, -1e9, -inf or half precision's lowest (-65504) there, and no
# real logit comes near. A weighted sum of such values would be another number, or nan, so they are kept as they are.
MASKED = -1e4


def check_kinds(kinds: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where a kind does not exist: what is not known would combine as something else."""
    if not isinstance(kinds, Mapping):
        raise TypeError(f"kinds must name outputs, as {{'score': 'logits'}}, got {kinds!r}")
    for name, kind in kinds.items():
        if kind not in get_args(Kind):
            allowed = ", ".join(map(repr, get_args(Kind)))
            raise ValueError(f"the kind of output {name!r} must be one of {allowed}, got {kind!r}")


def check_names(outputs: Any, kinds: Mapping[str, str], optional: Sequence[str], several: bool = True) -> None:
    """Refuse a kind for an output that is not there: the one that it was meant for would combine as logits.

    Where ``several`` levels answer, warn of whole numbers without a kind.
    """
    found: dict[str, torch.dtype] = {}
    map_tensors(lambda tensor, key: found.setdefault(key, tensor.dtype), outputs)
    unused = [name for name in kinds if name not in found and name not in optional]
    without = [name for name, dtype in found.items() if dtype.is_floating_point and name not in kinds]
    others = {name: dtype for name, dtype in found.items() if name not in kinds and name not in without}
    numbers = [name for name, dtype in others.items() if dtype != torch.bool]
    if several and numbers and not is_compiling():
        warnings.warn(
            f"output {', '.join(map(repr, numbers))} holds whole numbers and has no kind, so that level 0 alone, the "
            "query as it is, answers it. If every level has the same, its kind is 'shared'; what a base decodes of its "
            "scores is to be decoded of the wrapped model's",
            stacklevel=2,
        )
    if unused:
        other = f", of which {', '.join(map(repr, without))} would combine as logits" if without else ""
        raise ValueError(
            f"kinds names {', '.join(map(repr, unused))}, but the outputs are {', '.join(map(repr, found))}{other}: "
            "name each output as the base returns it, and in the adapter's optional_outputs what is not always there"
        )


class WeightedAggregation(nn.Module):
    """``O = sum_i W_i O_i`` with ``W_i = MLP(T_i)``, ``T_i`` a learned vector drawn at random (HERO, arXiv 2603.06732).

    Args:
        levels: N.
        dim: size of the vectors T_i.
        normalize: pass the weights through a softmax, so that scores and spans stay in range; False is the formula
            as printed, with weights that start near 1/N.
        query_dim: D, for weights that depend on the query, ``W_i = MLP(T_i, q)`` (not in the paper); None is the
            formula. The MLP's first layer adds a projection of q that starts at zero: the weights start as without.

    Each output tensor has a kind: ``"logits"`` are summed as they are (values that mark padding, -1e30 or -inf, are
    kept); ``"probability"`` (scores and normalized spans in [0, 1]) stay in [0, 1], as a convex sum when the weights
    are normalized, else as a sum of their logits; where the base itself leaves [0, 1], they are summed as they are;
    ``"direction"`` (vectors of unit length along the last axis) are summed and brought back to unit length;
    ``"shared"`` is the same at every level (masks, proposals) and is taken from level 0; ``"whole"`` has no levels at
    all (a parameter of the base) and is left as it is. Floating tensors are logits and all others shared, unless
    ``kinds`` says otherwise.

    Example:
        >>> aggregate = WeightedAggregation(levels=4)
        >>> aggregate({"scores": torch.rand(4, 2, 64)}, {"scores": "probability"})["scores"].shape
        torch.Size([2, 64])
    """

    def __init__(self, levels: int = 4, dim: int = 128, normalize: bool = True, query_dim: int | None = None) -> None:
        super().__init__()
        self.levels, self.normalize = levels, normalize
        self.templates = nn.Parameter(torch.empty(levels, dim))
        self.reset_parameters()
        last = Linear(dim, 1)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), last)
        if normalize:
            last.register_parameter("bias", None)  # a softmax does not see it
        else:
            last.start(bias=partial(nn.init.constant_, val=1.0 / levels))
        self.query = None if query_dim is None else Linear(query_dim, dim, bias=False)
        if self.query is not None:
            self.query.start(weight=nn.init.zeros_)

    def reset_parameters(self) -> None:
        """Draw the vectors T_i; the layers of the MLP reset themselves."""
        nn.init.normal_(self.templates)

    def weights(self, levels: Sequence[int] | None = None, query: Tensor | None = None) -> Tensor:
        """Return the weight of each level, or of these alone: (N,). Normalized, they add up to 1 in both cases.

        Where they depend on it, ``query`` (B, D) gives (N, B); without it they are those of a query of zeros.
        """
        templates = self.templates if levels is None else self.templates[list(levels)]
        if self.query is None or query is None:
            weights = self.mlp(templates)
        else:
            weights = self.mlp[1:](self.mlp[0](templates).unsqueeze(1) + self.query(query))
        weights = at_least_float32(weights.squeeze(-1))
        return weights.softmax(0) if self.normalize else weights

    def forward(
        self,
        outputs: Any,
        kinds: Mapping[str, Kind] | None = None,
        levels: Sequence[int] | None = None,
        query: Tensor | None = None,
    ) -> Any:
        """Combine every tensor of ``outputs``.

        Args:
            outputs: tensors (N, ...), alone or in tuples, lists and dicts, nested at will.
            kinds: kind of a tensor by its name: a dict's key, a field, or the index in a tuple as text.
            levels: the levels that ``outputs`` hold, from 0; None is all.
            query: (B, D) what each query is about, where the weights depend on it; ``outputs`` are (N, B, ...) then.

        Returns:
            The same structure without the leading N.

        Raises:
            ValueError: a kind does not exist, or a tensor has other levels.
        """
        if self.query is not None and query is None:
            raise ValueError("the weights depend on the query: give it, (B, D)")
        weights, kinds = self.weights(levels, query), kinds or {}

        def combine(tensor: Tensor, key: str) -> Tensor:
            kind = kinds.get(key, "logits")
            if kind == "whole":
                return tensor
            alone = tensor.shape == (1,) or (kind == "logits" and not tensor.is_floating_point())
            if kind == "shared" or alone:  # a scalar has no levels, and a mask beside logits no weights
                return tensor[0]
            if tensor.shape[: weights.ndim] != weights.shape:
                batch = f" and the batch of {weights.shape[1]}" if weights.ndim > 1 else ""
                raise ValueError(
                    f"output {key or 'tensor'} must have {len(weights)} levels{batch} first, got {tuple(tensor.shape)}"
                )
            if kind == "direction":
                return F.normalize(at_least_float32(_weighted_sum(weights, tensor)), dim=-1).to(tensor.dtype)
            if kind == "logits":
                return _sum_logits(weights, tensor)
            check_kinds({key: kind})
            return self._sum_probabilities(weights, tensor)

        return map_tensors(combine, outputs)

    def _sum_probabilities(self, weights: Tensor, tensor: Tensor) -> Tensor:
        plain = _weighted_sum(weights, tensor)
        if self.normalize:
            combined = plain.clamp(0.0, 1.0)  # rounding can carry a sum of ones past 1: cross-entropy refuses that
        else:
            impossible = (tensor == 0).all(0)  # what a base rules out by its mask stays so, whatever the weights' signs
            combined = _weighted_sum(weights, torch.logit(at_least_float32(tensor), eps=1e-6)).sigmoid()
            combined = combined.masked_fill(impossible, 0.0).to(tensor.dtype)
        # A base may go past the range: offsets of a fork's are negative, and a wide moment's width exceeds the video.
        return torch.where(((tensor < 0) | (tensor > 1)).any(0), plain, combined)

    def extra_repr(self) -> str:
        """Return the choices, for ``print(model)``."""
        return f"levels={self.levels}, normalize={self.normalize}"


def _weighted_sum(weights: Tensor, tensor: Tensor) -> Tensor:
    # Elementwise: autocast would do a matrix product, and with it a base's float32 outputs, in half precision.
    shape = *weights.shape, *[1] * (tensor.ndim - weights.ndim)
    return (weights.view(shape) * at_least_float32(tensor)).sum(0).to(tensor.dtype)


def _sum_logits(weights: Tensor, tensor: Tensor) -> Tensor:
    masked = tensor <= MASKED
    combined = _weighted_sum(weights, tensor.masked_fill(masked, 0.0))
    return torch.where(masked.any(0), tensor.amin(0).detach(), combined)  # what one level rules out, their sum does
