"""Map a function over the tensors of whatever a model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor, str], Any], outputs: Any, key: str = "") -> Any:
    """Apply ``function(tensor, key)`` to every tensor in tuples, named tuples, lists and mappings, keeping the types.

    ``key`` is the nearest name: a mapping's key, or an index of the outermost tuple or list. What is not a tensor
    or a container is passed through.
    """
    if isinstance(outputs, Tensor):
        return function(outputs, key)
    if isinstance(outputs, Mapping):
        return _same_mapping(outputs, {name: map_tensors(function, item, str(name)) for name, item in outputs.items()})
    if isinstance(outputs, (tuple, list)):
        return _same_sequence(
            outputs, [map_tensors(function, item, key or str(place)) for place, item in enumerate(outputs)]
        )
    return outputs


def map_items(function: Callable[[Any], Any], outputs: Any) -> Any:
    """Apply ``function`` to what a tuple, list or mapping holds directly, keeping its type; else pass it through."""
    if isinstance(outputs, Mapping):
        return _same_mapping(outputs, {name: function(item) for name, item in outputs.items()})
    if isinstance(outputs, (tuple, list)):
        return _same_sequence(outputs, [function(item) for item in outputs])
    return outputs


def _same_sequence(outputs: Any, items: list[Any]) -> Any:
    return type(outputs)(*items) if hasattr(outputs, "_fields") else type(outputs)(items)


def _same_mapping(outputs: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(outputs) is dict:
        return items
    try:
        return type(outputs)(items)  # type: ignore[call-arg]
    except TypeError:  # a dataclass-like mapping (transformers.ModelOutput) takes its fields by name
        return type(outputs)(**items)
