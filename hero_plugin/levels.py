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

# Maps over the tensors of whatever a model returns.


def map_tensors(
    function: Callable[[Tensor, str], Any],
    outputs: Any,
    key: str = "",
    *,
    lists: Callable[[list[Any], str], list[Any] | None] | None = None,
    others: Callable[[Any, str], Any] | None = None,
) -> Any:
    """Apply ``function(tensor, key)`` to every tensor in tuples, lists, mappings and dataclasses, keeping the types.

    ``key`` is the nearest name: a mapping's key, a field, or an index of the outermost tuple or list.

    Args:
        function: takes a tensor and its key.
        outputs: what a model returns.
        key: the name of ``outputs`` itself.
        lists: called with every list first; what it returns takes the list's place, unless it is None.
        others: called with what is neither tensor nor container; without it, that is passed through.
    """
    if isinstance(outputs, Tensor):
        return function(outputs, key)

    def inner(item: Any, name: str) -> Any:
        return map_tensors(function, item, name, lists=lists, others=others)

    if isinstance(outputs, Mapping):
        return _same_mapping(outputs, {name: inner(item, str(name)) for name, item in outputs.items()})
    if isinstance(outputs, list) and lists is not None:
        instead = lists(outputs, key)
        if instead is not None:
            return instead
    if isinstance(outputs, (tuple, list)):
        return _same_sequence(outputs, [inner(item, key or str(place)) for place, item in enumerate(outputs)])
    if is_record(outputs):
        return _same_record(
            outputs, {each.name: inner(getattr(outputs, each.name), each.name) for each in fields(outputs)}
        )
    return outputs if others is None else others(outputs, key)


def is_record(outputs: Any) -> bool:
    """Return whether ``outputs`` is an instance of a dataclass."""
    # Not None first: some releases of torch (2.11) cannot trace the question whether None is a dataclass.
    return outputs is not None and is_dataclass(outputs) and not isinstance(outputs, type)


def map_items(function: Callable[[Any], Any], outputs: Any) -> Any:
    """Apply ``function`` to what a tuple, list or mapping holds directly, keeping its type; else pass it through."""
    if isinstance(outputs, Mapping):
        return _same_mapping(outputs, {name: function(item) for name, item in outputs.items()})
    if isinstance(outputs, (tuple, list)):
        return _same_sequence(outputs, [function(item) for item in outputs])
    return outputs


def _same_sequence(outputs: Any, items: list[Any]) -> Any:
    return type(outputs)(*items) if hasattr(outputs, "_fields") else type(outputs)(items)


def _same_record(outputs: Any, items: dict[str, Any]) -> Any:
    made = copy(outputs)
    for name, item in items.items():
        object.__setattr__(made, name, item)  # also where it is frozen
    return made


def _same_mapping(outputs: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(outputs) is dict:
        return items
    try:
        return type(outputs)(items)  # type: ignore[call-arg]
    except TypeError:  # a dataclass-like mapping (transformers.ModelOutput) takes its fields by name
        return type(outputs)(**items)


def fold(levels: Tensor) -> Tensor:
    """Fold (N, B, ...) -> (N*B, ...), level-major: a base that pairs neighbours still pairs different samples."""
    return rearrange(levels, "n b ... -> (n b) ...")


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
        if batch is None or len(items) != levels * batch or _all_batched(items, levels * batch):
            return None
        return [stack(items[sample::batch], kinds, key) for sample in range(batch)]

    return map_tensors(split, folded, lists=by_sample, others=_plain if levels > 1 else None)


def stack(results: Sequence[Any], kinds: Mapping[str, str] | None = None, key: str = "") -> Any:
    """Stack the results of single levels, each (B, ...) -> (N, B, ...), into what ``unfold`` makes of one batch."""
    tensors: list[list[Tensor]] = []
    for result in results:
        tensors.append([])
        map_tensors(_keep_in(tensors[-1]), result)
    of_all_levels = iter(zip(*tensors, strict=True))

    def join(tensor: Tensor, name: str) -> Tensor:
        levels = next(of_all_levels)
        if kinds and kinds.get(name) == "whole":
            return tensor
        return torch.stack(levels) if tensor.ndim else tensor.unsqueeze(0)

    return map_tensors(join, results[0], key, others=_plain if len(results) > 1 else None)


def _all_batched(items: list[Any], size: int) -> bool:
    """Return whether the items are themselves of the whole batch, as those of a decoder's layers are."""
    found: list[Tensor] = []
    map_tensors(_keep_in(found), items)
    return bool(found) and all(tensor.shape[:1] == (size,) for tensor in found)


def _plain(item: Any, key: str) -> Any:
    """Pass what is the same at every level; refuse an array or an object: it could hold a batch, never combined."""
    holds = getattr(item, "ndim", 1) > 0 if hasattr(item, "__array__") else hasattr(item, "__dict__")
    if holds and not callable(item) and not isinstance(item, Enum):
        raise TypeError(
            f"output {key or 'of the base'} is a {type(item).__name__}, which cannot be combined over levels: let the "
            "base, or its adapter's ground, give tensors in dicts, tuples, lists or dataclasses"
        )
    return item


def _keep_in(found: list[Tensor]) -> Callable[[Tensor, str], None]:
    return lambda tensor, key: found.append(tensor)


def repeat_levels(shared: Any, levels: int, batch: int) -> Any:
    """Repeat what all levels share, level-major, in tuples and mappings nested at will.

    Tensors (B, ...) -> (N*B, ...), and so a list of B items, one per sample, whatever they are; others stay.
    """
    if isinstance(shared, list) and len(shared) == batch:
        return shared * levels
    if isinstance(shared, Tensor):
        return repeat(shared, "b ... -> (n b) ...", n=levels) if shared.shape[:1] == (batch,) else shared
    return map_items(lambda item: repeat_levels(item, levels, batch), shared)
