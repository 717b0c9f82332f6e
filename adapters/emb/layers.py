"""Building blocks of EMB: masks, linear layers, and an LSTM over sequences of different lengths."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hero_plugin.adapters.cpu_ops import LOWEST, Dropout
from hero_plugin.tensors import at_least_float32


def mask_bias(mask: Tensor) -> Tensor:
    """Return the bias that shuts masked positions out: 0 where ``mask`` is 1, -1e30 where it is 0.

    float32 at least, so that half-precision logits are promoted rather than overflown. Finite, so that a
    row with nothing to attend to becomes the plain average, with gradients, as in upstream.
    """
    return (1.0 - mask.float()) * LOWEST


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Return ``logits`` where ``mask`` is 1, about -1e30 elsewhere. The shapes broadcast."""
    return logits + mask_bias(mask)


class Conv1D(nn.Module):
    """Linear layer over the last axis, with its weight where upstream's convolution of width one has it."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(in_dim, out_dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Project: (..., in_dim) -> (..., out_dim)."""
        return F.linear(x, self.weight, self.conv1d.bias)

    @property
    def weight(self) -> Tensor:
        """The matrix (out_dim, in_dim)."""
        return self.conv1d.weight.squeeze(-1)


class VisualProjection(nn.Module):
    """Projection of video features to the model's width."""

    def __init__(self, visual_dim: int, dim: int, drop_rate: float) -> None:
        super().__init__()
        self.drop = Dropout(drop_rate)
        self.linear = Conv1D(visual_dim, dim)

    def forward(self, visual_features: Tensor) -> Tensor:
        """Project: (B, T, visual_dim) -> (B, T, dim)."""
        return self.linear(self.drop(visual_features))


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
        x = x.to(next(rnn.parameters()).dtype)
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
