"""Shape checks whose messages say what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


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
