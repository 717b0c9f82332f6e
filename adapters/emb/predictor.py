"""Predictor of a moment's start and end from fused clip features."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hero_plugin.adapters.emb.layers import Conv1D, mask_logits
from hero_plugin.adapters.emb.recurrence import bidirectional_lstm, lengths_of


class LSTMBlock(nn.Module):
    """Bidirectional LSTM over the real clips, projected back to the model's width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.dense_output = Conv1D(2 * dim, dim)

    def forward(self, target: Tensor, lengths: Tensor) -> Tensor:
        """Encode: target (B, T, D), real positions first, lengths (B,) of ``lengths_of`` -> (B, T, D)."""
        return self.dense_output(bidirectional_lstm(self.rnn, target, lengths))


def boundary_block(dim: int) -> nn.Sequential:
    """Make the layers that score boundaries: (B, T, 2·dim) -> (B, T, 1)."""
    return nn.Sequential(Conv1D(2 * dim, dim), nn.ReLU(), Conv1D(dim, 1))


class ConditionedPredictor(nn.Module):
    """Predictor of the start, then of the end from the features that found the start."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.start_encoder = LSTMBlock(dim)
        self.end_encoder = copy.deepcopy(self.start_encoder)
        self.start_block = boundary_block(dim)
        self.end_block = boundary_block(dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Predict: x (B, T, D), mask (B, T) -> start and end logits, (B, T) each, about -1e30 at padding."""
        lengths = lengths_of(mask)
        start_features = self.start_encoder(x, lengths)
        end_features = self.end_encoder(start_features, lengths)
        start = self.start_block(torch.cat([start_features, x], dim=2)).squeeze(2)
        end = self.end_block(torch.cat([end_features, x], dim=2)).squeeze(2)
        return mask_logits(start, mask), mask_logits(end, mask)

    @staticmethod
    def extract_index(start_logits: Tensor, end_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Find the most probable pair with start <= end: logits (B, T) -> first and last clip, (B,) each.

        The best end for a start is the maximum of the end probabilities from there on, so one running
        maximum each way does what a (T, T) table of pairs would.
        """
        start, end = start_logits.softmax(dim=1), end_logits.softmax(dim=1)
        best_end = end.flip(1).cummax(dim=1).values.flip(1)
        best_start = start.cummax(dim=1).values
        return (start * best_end).argmax(dim=1), (best_start * end).argmax(dim=1)
