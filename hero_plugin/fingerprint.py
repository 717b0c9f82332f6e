"""The fingerprint of a base, apart from the values of its weights: a plug-in knows the base it was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Form = tuple[tuple[int, ...], str]
"""Shape and dtype of a tensor: ((256, 512), "float32")."""

_SHOWN = 3


@dataclass(frozen=True)
class Fingerprint:
    """A base's class, the hidden size that HERO works at, and name, shape and dtype of all that its state_dict holds.

    Fine-tuning a base leaves it as it is. Made by ``of``, or from a checkpoint by ``from_dict``.
    """

    class_name: str | None
    """None where only weights are known, and their names do not tell."""
    dim: int | None
    """D; None where it is not known."""
    tensors: Mapping[str, Form]

    @classmethod
    def of(cls, base: nn.Module, class_name: str, dim: int) -> Fingerprint:
        """Return the fingerprint of a module that its adapter calls a ``class_name`` of hidden size ``dim``."""
        return cls(class_name, dim, forms(base.state_dict()))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Fingerprint:
        """Make a fingerprint of what ``to_dict`` returned.

        Raises:
            ValueError: ``plain`` is something else.
        """
        try:
            tensors = {
                str(name): (tuple(map(int, shape)), str(dtype)) for name, (shape, dtype) in plain["tensors"].items()
            }
            return cls(plain["class"], plain["dim"], tensors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not the fingerprint of a base: {error!r}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return strings, numbers, lists and dicts."""
        tensors = {name: [list(shape), dtype] for name, (shape, dtype) in self.tensors.items()}
        return {"class": self.class_name, "dim": self.dim, "digest": self.digest, "tensors": tensors}

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits, equal for equal fingerprints."""
        content = json.dumps([self.class_name, self.dim, sorted(self.tensors.items())])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def obstacles(self, other: Fingerprint) -> list[str]:
        """Return why a plug-in of the base ``other`` has no place on this one, one line per reason.

        Its weights are shaped by the hidden size, and trained for a class of base; of nothing else do they depend.
        """
        lines = []
        if None not in (self.class_name, other.class_name) and self.class_name != other.class_name:
            lines.append(f"the base is {self.class_name} here, {other.class_name} in the checkpoint")
        if None not in (self.dim, other.dim) and self.dim != other.dim:
            lines.append(f"its hidden size is {self.dim} here, {other.dim} in the checkpoint")
        return lines

    def differences(self, other: Fingerprint) -> list[str]:
        """Return what else differs from ``other``, in a few lines: another vocabulary, other features, more layers."""
        both = [name for name in self.tensors if name in other.tensors]
        shapes = [
            f"{name} is {self.tensors[name][0]} here, {other.tensors[name][0]} in the checkpoint"
            for name in both
            if self.tensors[name][0] != other.tensors[name][0]
        ]
        lines = shapes[:_SHOWN]
        if len(shapes) > _SHOWN:
            lines.append(f"{len(shapes) - _SHOWN} more have other shapes")
        types = [name for name in both if self.tensors[name][1] != other.tensors[name][1]]
        if types:
            here, there = (fingerprint.tensors[types[0]][1] for fingerprint in (self, other))
            lines.append(f"{len(types)} are of another type: {types[0]} is {here} here, {there} in the checkpoint")
        for where, more, less in (("here", self, other), ("in the checkpoint", other, self)):
            only = [name for name in more.tensors if name not in less.tensors]
            if only:
                lines.append(f"{len(only)} only {where}: {_some(only)}")
        return lines


def forms(state: Mapping[str, Any]) -> dict[str, Form]:
    """Return shape and dtype of every tensor of a state_dict."""
    return {
        name: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
