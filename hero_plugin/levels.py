"""Levels of meaning as a leading axis, folded into the batch while they pass through the base."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor


def level_numbers(levels: Any) -> Any:
    """Return a sequence of whole numbers, also of numpy's and torch's, as a tuple; anything else as it is."""
    try:
        return tuple(level if isinstance(level, bool) else operator.index(level) for level in levels)
    except TypeError:
        return levels


def fold(levels: Tensor) -> Tensor:
    """Fold (N, B, ...) -> (N*B, ...), level-major: a base that pairs neighbours still pairs different samples."""
    return rearrange(levels, "n b ... -> (n b) ...")


def repeat_levels(shared: Any, levels: int, batch: int, name: str = "tensor", per_sample: bool = False) -> Any:
    """Repeat what all levels share, level-major, in containers nested at will: tensors (B, ...) -> (N*B, ...).

    Scalars and what is neither tensor nor array stay. ``per_sample`` says that lists of B items hold one per sample,
    whatever that is, and are repeated themselves: a size that happens to be B says nothing, as the last batch of an
    epoch has another. Errors call it ``name``.

    Raises:
        ValueError: a tensor without the batch first, or a list that neither ``per_sample`` nor ``constant`` names.
        TypeError: an array, which may hold a batch.
    """
    if per_sample and type(shared) is tuple:  # as zip(*batch) makes them
        return tuple(repeat_levels(list(shared), levels, batch, name, per_sample))

    def spread(tensor: Tensor, key: str) -> Tensor:
        if tensor.ndim and len(tensor) != batch:
            raise ValueError(
                f"{name} {tuple(tensor.shape)} must have the batch of {batch} first; if it is the same for every "
                "sample, name it in the pair's `constant`"
            )
        return repeat(tensor, "b ... -> (n b) ...", n=levels) if tensor.ndim else tensor

    def of_samples(items: list[Any], key: str) -> list[Any] | None:
        if not per_sample and not tensors_of(items):
            raise ValueError(
                f"{name} is a list without tensors: name it in the pair's `per_sample` if it holds one item per "
                "sample, or in `constant` if it is the same for all"
            )
        return items * levels if per_sample and len(items) == batch else None

    def no_array(item: Any, key: str) -> Any:
        if hasattr(item, "__array__"):
            raise TypeError(f"{name} is a {type(item).__name__}: give a tensor, or name it in the pair's `constant`")
        return item

    return map_tensors(spread, shared, on_list=of_samples, on_leaf=no_array)


def unfold(
    folded: Any,
    levels: int,
    kinds: Mapping[str, str] | None = None,
    batch: int | None = None,
    part_of_batch: Sequence[str] = (),
    by_row: bool = False,
) -> Any:
    """Split (N*B, ...) -> (N, B, ...) for every tensor of ``folded`` but those that ``kinds`` calls whole.

    A scalar gets a level axis of one. A list of N*B items, one per sample, becomes one of B, each item's tensors
    (...) -> (N, ...) and all else as level 0 has it.

    Args:
        folded: tensors, alone or nested.
        levels: N.
        kinds: the kind of each output by its name, as the aggregation takes them.
        batch: B; without it, no list is taken for one of samples, and a first axis may be any multiple of N.
        part_of_batch: names of outputs whose first axis may be any multiple of N.
        by_row: whether each sample's levels are weighed by themselves, which items without the batch are not.

    Raises:
        ValueError: a tensor whose first axis is not the batch of all levels, or, with ``by_row``, a list of one item
            per sample.
        TypeError: an array or an object, which may hold values of the batch and cannot be split.
    """

    def split(tensor: Tensor, key: str) -> Tensor:
        if kinds and kinds.get(key) == "whole":
            return tensor
        # Divisible is not enough: (words, batch, D) with eight words would be cut into levels of words.
        size = None if batch is None or key in part_of_batch else levels * batch
        if tensor.ndim and (tensor.shape[0] % levels or (size and levels > 1 and tensor.shape[0] != size)):
            raise ValueError(
                f"output {key or 'tensor'} {tuple(tensor.shape)} must have the batch first, that of {levels} levels in "
                f"one{f': {size}' if size else ''}; if it has none at all, its kind is 'whole'"
            )
        return rearrange(tensor, "(n b) ... -> n b ...", n=levels) if tensor.ndim else tensor.unsqueeze(0)

    def by_sample(items: list[Any], key: str) -> list[Any] | None:
        if batch is None or len(items) != levels * batch or (kinds and kinds.get(key) == "whole"):
            return None
        tensors = tensors_of(items)
        if tensors and all(tensor.shape[:1] == (levels * batch,) for _, tensor in tensors):
            bare = any(isinstance(item, Tensor) for item in items)  # and not a layer's dict, as DETRs have them
            if levels > 1 and bare and key not in (kinds or {}):
                raise ValueError(
                    f"output {key or 'of the base'} is a list of {len(items)} items with {len(items)} rows each: of "
                    "one per sample, or of one per layer, which this batch size cannot tell. Name its kind if they "
                    "are layers; if not, let the base give tensors"
                )
            return None  # items of the whole batch, as those of a decoder's layers are: not one per sample
        if by_row and levels > 1 and tensors:
            raise _not_by_row(key)
        of_samples = [items[sample::batch] for sample in range(batch)]
        for item in of_samples:
            _expect_same_numbers(item, key)
        return [stack(item, kinds, key) for item in of_samples]

    return map_tensors(split, folded, on_list=by_sample, on_leaf=_same_at_levels if levels > 1 else None)


def _not_by_row(key: str, unsure: str = "") -> ValueError:
    return ValueError(
        f"output {key or 'of the base'} is a list of one item per sample, which level_weights='query' cannot weigh"
        f"{unsure}: wrap with level_weights='learned'"
    )


def stack(
    results: Sequence[Any], kinds: Mapping[str, str] | None = None, key: str = "", by_row: int | None = None
) -> Any:
    """Stack the results of single levels, each (B, ...) -> (N, B, ...), into what ``unfold`` makes of one batch.

    ``by_row`` is B where each sample has weights of its own, which a list of one item per sample has no axis for. One
    of B items with B rows each is refused, too, unless ``kinds`` names it: it is then of the batch, one per layer.
    """
    _expect_same_numbers(results, key, listed=False)
    of_all_levels = iter(zip(*map(tensors_of, results), strict=True))

    def join(tensor: Tensor, name: str) -> Tensor:
        levels = [each for _, each in next(of_all_levels)]
        if kinds and kinds.get(name) == "whole":
            return tensor
        if tensor.ndim:
            return torch.stack(levels)
        # What the base averages over a batch of all levels is the mean of what it averages over each.
        return torch.stack(levels).mean(0, keepdim=True) if tensor.is_floating_point() else tensor.unsqueeze(0)

    def by_sample(items: list[Any], name: str) -> None:
        if by_row is None or by_row == 1 or len(items) != by_row or (kinds and kinds.get(name) == "whole"):
            return
        found = tensors_of(items, name)
        if any(tensor.shape[:1] != (by_row,) for _, tensor in found):
            raise _not_by_row(name)
        if any(inner not in (kinds or {}) for inner, _ in found):
            raise _not_by_row(name, ", or of one per layer, which this batch size cannot tell; give its kind if so")

    return map_tensors(join, results[0], key, on_list=by_sample, on_leaf=_same_at_levels if len(results) > 1 else None)


def map_tensors(
    function: Callable[[Tensor, str], Any],
    outputs: Any,
    key: str = "",
    *,
    on_list: Callable[[list[Any], str], list[Any] | None] | None = None,
    on_leaf: Callable[[Any, str], Any] | None = None,
) -> Any:
    """Apply ``function(tensor, key)`` to every tensor in tuples, lists, mappings and dataclasses, keeping the types.

    ``key`` is the nearest name: a mapping's key, a field (of a dataclass or a named tuple), or an index of the
    outermost tuple or list.

    ``on_list`` is called with every list first: what it returns takes the list's place, unless it is None. ``on_leaf``
    is called with what is neither tensor nor container; without it, that is passed through.
    """
    if isinstance(outputs, Tensor):
        return function(outputs, key)

    def inner(item: Any, name: str) -> Any:
        return map_tensors(function, item, name, on_list=on_list, on_leaf=on_leaf)

    if isinstance(outputs, Mapping):
        return like_mapping(outputs, {name: inner(item, str(name)) for name, item in outputs.items()})
    if isinstance(outputs, list) and on_list is not None:
        instead = on_list(outputs, key)
        if instead is not None:
            return instead
    if isinstance(outputs, (tuple, list)):
        names = getattr(outputs, "_fields", None) or [key or str(place) for place in range(len(outputs))]
        items = [inner(item, name) for name, item in zip(names, outputs, strict=True)]
        return type(outputs)(*items) if hasattr(outputs, "_fields") else type(outputs)(items)
    # Not None first: some releases of torch (2.11) cannot trace the question whether None is a dataclass.
    if outputs is not None and is_dataclass(outputs) and not isinstance(outputs, type):
        made = copy(outputs)
        more = getattr(made, "__dict__", {})  # what is no field: set in __post_init__, or cached of what was before
        for cached in [name for name in more if isinstance(getattr(type(made), name, None), cached_property)]:
            del more[cached]
        for name in dict.fromkeys([*(field.name for field in fields(outputs)), *more]):
            object.__setattr__(made, name, inner(getattr(outputs, name), name))  # also where it is frozen
        return made
    return outputs if on_leaf is None else on_leaf(outputs, key)


def like_mapping(outputs: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Return a mapping of these items, of the type of ``outputs``."""
    kind: Any = type(outputs)
    try:
        return kind(items)
    except TypeError:  # a dataclass-like mapping (transformers.ModelOutput) takes its fields by name
        return kind(**items)


def tensors_of(outputs: Any, key: str = "") -> list[tuple[str, Tensor]]:
    """Return every tensor with its key (see ``map_tensors``), in order."""
    found: list[tuple[str, Tensor]] = []
    map_tensors(lambda tensor, name: found.append((name, tensor)), outputs, key)
    return found


def _expect_same_numbers(results: Sequence[Any], key: str, listed: bool = True) -> None:
    """Refuse Python numbers in lists that differ between levels: level 0's would be the answer."""

    def numbers(item: Any, listed: bool) -> list[Any]:
        if isinstance(item, (Mapping, list, tuple)):
            inside = item.values() if isinstance(item, Mapping) else item
            return [number for each in inside for number in numbers(each, listed or isinstance(item, list))]
        return [item] if listed and isinstance(item, (int, float)) else []

    if len({repr(numbers(result, listed)) for result in results}) > 1:  # by text, where nan is nan
        raise TypeError(
            f"output {key or 'of the base'} has numbers that differ between levels, and cannot be combined: let the "
            "base, or its adapter's ground, give tensors, and make numbers of what the wrapped model returns"
        )


def _same_at_levels(item: Any, key: str) -> Any:
    """Pass what is the same at every level; refuse an array or an object: it could hold a batch, never combined."""
    holds = getattr(item, "ndim", 1) > 0 if hasattr(item, "__array__") else hasattr(item, "__dict__")
    if holds and not callable(item) and not isinstance(item, Enum):
        raise TypeError(
            f"output {key or 'of the base'} is a {type(item).__name__}, which cannot be combined over levels: let the "
            "base, or its adapter's ground, give tensors in dicts, tuples, lists or dataclasses"
        )
    return item
