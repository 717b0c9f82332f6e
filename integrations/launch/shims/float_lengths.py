"""Lengths of sequences that come as a list of float tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from hero_plugin.integrations.launch.patches import Patch
from hero_plugin.integrations.launch.shims import Shim


def _whole(pack: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(pack)
    def packed(input: torch.Tensor, lengths: Any, *args: Any, **kwargs: Any) -> Any:
        return pack(input, torch.tensor([int(length) for length in lengths]), *args, **kwargs)

    return packed


def _needed() -> bool:
    try:
        pack_padded_sequence(torch.zeros(1, 1, 1), [torch.tensor(1.0)], batch_first=True)
    except (RuntimeError, TypeError):
        return True
    return False


FLOAT_LENGTHS = Shim(
    name="float-lengths",
    symptom="TypeError: only integer tensors of a single element can be converted to an index, in model/predictor.py",
    repair="the lengths of word sequences, sums of a float mask, are made whole before they are packed",
    needed=_needed,
    patches=(Patch("model.predictor", "pack_padded_sequence", _whole, "takes lengths that are floats"),),
)
