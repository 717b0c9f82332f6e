"""What the modules share: masked attention, layers, statistics and modes, checks of shape, precision and torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from packaging.version import Version
from torch import Tensor, nn

if Version(torch.__version__) < Version("2.1"):
    raise ImportError(f'hero-plugin needs torch 2.1 or later, found {torch.__version__}: pip install "torch>=2.1"')


def is_compiling() -> bool:
    """Return whether ``torch.compile`` is tracing this call. Torch before 2.3 cannot say: then no."""
    return getattr(torch.compiler, "is_compiling", bool)()


class Keys(NamedTuple):
    """Which keys are real, in the two forms that attention needs: made once for all layers that share them."""

    allowed: Tensor
    """(..., 1, L) bool, what a query may attend to: the real keys, or all where none is real."""
    none: Tensor
    """(..., 1, 1) bool, whether no key is real."""

    @classmethod
    def of(cls, mask: Tensor) -> Keys:
        """Return the keys of a mask (..., L) bool, True where a key is real."""
        none = ~mask.any(dim=-1, keepdim=True)
        # A row with nothing to attend to is NaN in a softmax: let it attend everywhere and blank the result.
        return cls((mask | none).unsqueeze(-2), none.unsqueeze(-1))


def attend(query: Tensor, key: Tensor, value: Tensor, keys: Keys, dropout: float = 0.0) -> Tensor:
    """Return scaled dot-product attention over the real keys, ``softmax(Q Kᵀ / sqrt(d)) V``.

    query (..., T, d), key and value (..., L, d) -> (..., T, d); zeros, with zero gradients, where no key is real.
    ``keys`` broadcasts over the leading axes; ``dropout`` is that of attention weights, 0 outside training.
    """
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=keys.allowed, dropout_p=dropout)
    return context.masked_fill(keys.none, 0.0)


def mean_of_words(words: Tensor, query_mask: Tensor) -> Tensor:
    """Return the mean of the real words: (..., B, L, D), mask (B, L) -> (..., B, D); zeros where none is real."""
    real = query_mask.bool().unsqueeze(-1)
    return words.masked_fill(~real, 0.0).sum(-2) / real.sum(-2).clamp(min=1)


class Linear(nn.Linear):
    """Linear layer that starts elsewhere than torch's, also when somebody resets every module of a model."""

    def start(self, **starts: Callable[[Tensor], Any]) -> None:
        """Initialise ``weight`` or ``bias`` by a function of ``nn.init``, now and at every reset."""
        self.starts = starts
        for name, initialise in starts.items():
            initialise(getattr(self, name))

    def reset_parameters(self) -> None:
        """Initialise as torch does, then as ``start`` was told."""
        super().reset_parameters()
        self.start(**getattr(self, "starts", {}))


def check_mask(name: str, what: str, mask: Tensor) -> None:
    """Raise ``ValueError`` where a mask holds anything but 0 and 1. Reads its values: not for every step."""
    if not ((mask == 0) | (mask == 1)).all():
        values = mask[(mask != 0) & (mask != 1)]
        raise ValueError(f"{name} must be 1 at real {what} and 0 at padding, got values such as {values[0].item():g}")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in float32 where it is of half precision, else as it is (float64, integers, booleans)."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


_PLAIN = (int, float, str, type(None))


def plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return those attributes of a module that are numbers, texts or None: a counter, a mode, a loss."""
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(value, _PLAIN) or (isinstance(value, Tensor) and not value.ndim)
    }


class KeepStatistics:
    """Context in which buffers, counters and tensors that a base's modules hold stay as they are.

    A batch norm's running statistics, for one, or whatever else a module updates in training.
    """

    def __init__(self, base: nn.Module) -> None:
        self.base = base
        self.kept: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        buffers = [module._buffers for module in self.base.modules() if module.training]
        self.kept = [(each, name, value) for each in buffers for name, value in each.items() if value is not None]
        for each, name, value in self.kept:
            each[name] = value.clone()
        if not is_compiling():
            for own in (module.__dict__ for module in self.base.modules()):
                self.kept.extend(
                    (own, name, value) for name, value in own.items() if isinstance(value, (*_PLAIN, Tensor))
                )

    def __exit__(self, *error: Any) -> None:
        for each, name, value in self.kept:
            each[name] = value


@contextmanager
def kept_modes(module: nn.Module) -> Iterator[None]:
    """Context after which ``module`` and all modules in it are in the mode, training or not, that they had before."""
    before = [(each, each.training) for each in module.modules()]
    try:
        yield
    finally:
        for each, training in before:
            each.training = training


def expect_shape(name: str, tensor: Tensor, axes: str, sizes: Sequence[int | None]) -> None:
    """Raise ``ValueError`` unless ``tensor`` has the given sizes (``None`` matches any).

    >>> expect_shape("query_mask", torch.ones(4, 11), "B L", (4, 12))
    Traceback (most recent call last):
    ValueError: query_mask must be (B, L)=(4, 12), got (4, 11)
    """
    shape = tuple(tensor.shape)
    if len(shape) == len(sizes) and all(want is None or want == got for want, got in zip(sizes, shape, strict=True)):
        return
    names = axes.split()
    wanted = ", ".join(axis if size is None else str(size) for axis, size in zip(names, sizes, strict=True))
    raise ValueError(f"{name} must be ({', '.join(names)})=({wanted}), got {shape}")
