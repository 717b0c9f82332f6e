"""Maps over the tensors of whatever a model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


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
