"""Building blocks of the DETR family."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.dropout import Dropout


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers: (..., in_dim) -> (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class LinearLayer(nn.Module):
    """Layer normalisation, dropout and a linear layer, optionally with ReLU."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float, relu: bool) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(in_dim)
        self.net = nn.Sequential(Dropout(dropout), nn.Linear(in_dim, out_dim))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Project: (..., in_dim) -> (..., out_dim)."""
        x = self.net(self.LayerNorm(x))
        return x.relu() if self.relu else x


class InputProjection(nn.Sequential):
    """Projection of clip or word features to the model's width; ReLU after every layer but the last."""

    def __init__(self, in_dim: int, out_dim: int, num_layers: int, dropout: float) -> None:
        last = num_layers - 1
        super().__init__(
            *(LinearLayer(out_dim if i else in_dim, out_dim, dropout, relu=i < last) for i in range(num_layers))
        )
        self.in_dim = in_dim

    def forward(self, input: Tensor) -> Tensor:
        """Project: (B, L, in_dim) -> (B, L, out_dim).

        Raises:
            ValueError: features of another width.
        """
        if input.dim() != 3 or input.shape[-1] != self.in_dim:
            raise ValueError(
                f"features must be (B, L, {self.in_dim}), got {tuple(input.shape)}; "
                "text_dim or video_dim in the config must be the features' width"
            )
        return super().forward(input)


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """Return the logits of probabilities, between about -6.9 and 6.9; the shape stays."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def summed_projection(linear: nn.Linear, x: Tensor) -> Tensor:
    """Return ``linear(x).sum(-1)`` for the cost of one output instead of all: (..., D) -> (...)."""
    return F.linear(x, linear.weight.sum(0, keepdim=True), linear.bias.sum().unsqueeze(0)).squeeze(-1)


def xavier_(module: nn.Module) -> None:
    """Draw every matrix in ``module`` from Xavier's uniform distribution; vectors keep their values."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
