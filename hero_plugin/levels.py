"""Levels of meaning as a leading axis, folded into the batch while they pass through the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor


def fold(levels: Tensor) -> Tensor:
    """Fold (N, B, ...) -> (N*B, ...), level-major: a base that pairs neighbours still pairs different samples."""
    return rearrange(levels, "n b ... -> (n b) ...")


def repeat_levels(shared: Any, levels: int, batch: int) -> Any:
    """Repeat what all levels share, level-major, in containers nested at will.

    Tensors (B, ...) -> (N*B, ...), and so a list of B items, one per sample, whatever they are; others stay.
    """

    def spread(tensor: Tensor, key: str) -> Tensor:
        return repeat(tensor, "b ... -> (n b) ...", n=levels) if tensor.shape[:1] == (batch,) else tensor

    return map_tensors(spread, shared, on_list=lambda items, key: items * levels if len(items) == batch else None)


def unfold(folded: Any, levels: int, kinds: Mapping[str, str] | None = None, batch: int | None = None) -> Any:
    """Split (N*B, ...) -> (N, B, ...) for every tensor of ``folded`` but those that ``kinds`` calls whole.

    A scalar gets a level axis of one. A list of N*B items, one per sample, becomes one of B, each item's tensors
    (...) -> (N, ...) and all else as level 0 has it.

    Args:
        folded: tensors (N*B, ...), alone or nested.
        levels: N.
        kinds: the kind of each output by its name, as the aggregation takes them.
        batch: B, without which no list is taken for one of samples.

    Raises:
        ValueError: a tensor whose first axis has no levels in it.
        TypeError: an array or an object, which may hold values of the batch and cannot be split.
    """

    def split(tensor: Tensor, key: str) -> Tensor:
        if kinds and kinds.get(key) == "whole":
            return tensor
        if tensor.ndim and tensor.shape[0] % levels:
            raise ValueError(
                f"output {key or 'tensor'} {tuple(tensor.shape)} must have the batch first, that of {levels} levels in "
                "one; if it has none at all, its kind is 'whole'"
            )
        return rearrange(tensor, "(n b) ... -> n b ...", n=levels) if tensor.ndim else tensor.unsqueeze(0)

    def by_sample(items: list[Any], key: str) -> list[Any] | None:
        if batch is None or len(items) != levels * batch:
            return None
        tensors = _tensors(items)
        if tensors and all(tensor.shape[:1] == (levels * batch,) for tensor in tensors):
            return None  # items of the whole batch, as those of a decoder's layers are: not one per sample
        return [stack(items[sample::batch], kinds, key) for sample in range(batch)]

    return map_tensors(split, folded, on_list=by_sample, on_leaf=_same_at_levels if levels > 1 else None)


def stack(results: Sequence[Any], kinds: Mapping[str, str] | None = None, key: str = "") -> Any:
    """Stack the results of single levels, each (B, ...) -> (N, B, ...), into what ``unfold`` makes of one batch."""
    of_all_levels = iter(zip(*map(_tensors, results), strict=True))

    def join(tensor: Tensor, name: str) -> Tensor:
        levels = next(of_all_levels)
        if kinds and kinds.get(name) == "whole":
            return tensor
        return torch.stack(levels) if tensor.ndim else tensor.unsqueeze(0)

    return map_tensors(join, results[0], key, on_leaf=_same_at_levels if len(results) > 1 else None)


def map_tensors(
    function: Callable[[Tensor, str], Any],
    outputs: Any,
    key: str = "",
    *,
    on_list: Callable[[list[Any], str], list[Any] | None] | None = None,
    on_leaf: Callable[[Any, str], Any] | None = None,
) -> Any:
    """Apply ``function(tensor, key)`` to every tensor in tuples, lists, mappings and dataclasses, keeping the types.

    ``key`` is the nearest name: a mapping's key, a field, or an index of the outermost tuple or list.

    Args:
        function: takes a tensor and its key.
        outputs: what a model returns.
        key: the name of ``outputs`` itself.
        on_list: called with every list first; what it returns takes the list's place, unless it is None.
        on_leaf: called with what is neither tensor nor container; without it, that is passed through.
    """
    if isinstance(outputs, Tensor):
        return function(outputs, key)

    def inner(item: Any, name: str) -> Any:
        return map_tensors(function, item, name, on_list=on_list, on_leaf=on_leaf)

    if isinstance(outputs, Mapping):
        return _like_mapping(outputs, {name: inner(item, str(name)) for name, item in outputs.items()})
    if isinstance(outputs, list) and on_list is not None:
        instead = on_list(outputs, key)
        if instead is not None:
            return instead
    if isinstance(outputs, (tuple, list)):
        items = [inner(item, key or str(place)) for place, item in enumerate(outputs)]
        return type(outputs)(*items) if hasattr(outputs, "_fields") else type(outputs)(items)
    # Not None first: some releases of torch (2.11) cannot trace the question whether None is a dataclass.
    if outputs is not None and is_dataclass(outputs) and not isinstance(outputs, type):
        made = copy(outputs)
        for field in fields(outputs):
            value = inner(getattr(outputs, field.name), field.name)
            object.__setattr__(made, field.name, value)  # also where it is frozen
        return made
    return outputs if on_leaf is None else on_leaf(outputs, key)


def _like_mapping(outputs: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    kind: Any = type(outputs)
    if kind is dict:
        return items
    try:
        return kind(items)
    except TypeError:  # a dataclass-like mapping (transformers.ModelOutput) takes its fields by name
        return kind(**items)


def _tensors(outputs: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(lambda tensor, key: found.append(tensor), outputs)
    return found


def _same_at_levels(item: Any, key: str) -> Any:
    """Pass what is the same at every level; refuse an array or an object: it could hold a batch, never combined."""
    holds = getattr(item, "ndim", 1) > 0 if hasattr(item, "__array__") else hasattr(item, "__dict__")
    if holds and not callable(item) and not isinstance(item, Enum):
        raise TypeError(
            f"output {key or 'of the base'} is a {type(item).__name__}, which cannot be combined over levels: let the "
            "base, or its adapter's ground, give tensors in dicts, tuples, lists or dataclasses"
        )
    return item
