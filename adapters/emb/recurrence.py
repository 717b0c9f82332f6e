"""Bidirectional LSTM over sequences of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hero_plugin.attention import at_least_float32


def lengths_of(mask: Tensor) -> Tensor:
    """Return the lengths (B,) long on the CPU, where packing wants them, of a mask (B, T).

    On a GPU this waits for the device: ask once for several LSTMs.
    """
    return count_real(mask).cpu()


def count_real(mask: Tensor) -> Tensor:
    """Count the real places: (..., T) -> (...) long, exactly, also where half precision cannot count so far."""
    return at_least_float32(mask).sum(dim=-1).long()


@torch.compiler.disable
def bidirectional_lstm(rnn: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    """Run both directions: x (B, T, D), lengths (B,) long on the CPU -> (B, T, 2·H), forward beside backward states.

    What comes out past a sequence's length means nothing. A length of zero counts as one.

    On CPU nothing is packed: PyTorch's fused kernels refuse packed input. Each direction runs alone, the
    backward one over clips turned round within their length, so that padding comes last for both.
    """
    if x.device.type != "cpu":
        packed = pack_padded_sequence(x, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]
    steps, ends = torch.arange(x.shape[1]), lengths.unsqueeze(1)
    turned = torch.where(steps < ends, ends - 1 - steps, steps)
    # The fused kernels know half precision on some processors only.
    with torch.autocast(device_type="cpu", enabled=False):
        x = x.to(rnn.weight_ih_l0.dtype)
        ahead = run_direction(rnn, x, "")
        back = reorder(run_direction(rnn, reorder(x, turned), "_reverse"), turned)
    return torch.cat([ahead, back], dim=2)


def run_direction(rnn: nn.LSTM, x: Tensor, direction: str) -> Tensor:
    """Run one direction of a one-layer LSTM, from the first position to the last: (B, T, D) -> (B, T, H)."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights = [getattr(rnn, name + direction) for name in names]
    zeros = x.new_zeros(1, x.shape[0], rnn.hidden_size)
    states, _, _ = torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, rnn.training, False, True)
    return states


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Take ``x[b, order[b, t]]``: x (B, T, D), order (B, T) long -> (B, T, D)."""
    return x.gather(1, order.unsqueeze(-1).expand_as(x))
