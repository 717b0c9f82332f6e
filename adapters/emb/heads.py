"""Heads of EMB: highlights, ranks of proposals, the fusion of clips and words, and a moment's start and end."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.cpu_ops import Dropout
from hero_plugin.adapters.emb.layers import Conv1D, bidirectional_lstm, count_real, mask_logits
from hero_plugin.adapters.emb.losses import highlight_loss, ranking_loss


class HighLightLayer(nn.Module):
    """Head that gives every clip its probability of being inside the moment."""

    compute_loss = staticmethod(highlight_loss)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1d = Conv1D(dim, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Score clips: x (B, T, D), mask (B, T) -> (B, T) in [0, 1], 0 at padding."""
        return mask_logits(self.conv1d(x).squeeze(2), mask).sigmoid()


class ProposalRanker(nn.Module):
    """Head that convolves the map of proposals and gives each its probability of being a good one."""

    compute_loss = staticmethod(ranking_loss)

    def __init__(self, dim: int, kernel_size: int, num_layers: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.encoders = nn.ModuleList(
            nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2) for _ in range(num_layers)
        )
        self.predictor = nn.Conv2d(dim, 1, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Score proposals: x (B, N·N, D), mask (B, N·N) -> (B, N·N) in [0, 1], 0 where the mask is."""
        size = math.isqrt(mask.shape[1])
        if size * size != mask.shape[1]:
            raise ValueError(f"proposals must fill a square map, got {mask.shape[1]} of them")
        plane = x.unflatten(1, (size, size)).permute(0, 3, 1, 2)
        real = mask.to(x.dtype).view(-1, 1, size, size)
        for encoder in self.encoders:
            plane = F.relu(encoder(plane * real)) * neighbour_weight(real, self.kernel_size)
        logits = self.predictor(plane).flatten(1)
        return mask_logits(logits, mask).sigmoid()


def neighbour_weight(real: Tensor, kernel_size: int) -> Tensor:
    """Return one over the number of valid entries a convolution sees, 0 where it sees none: (B, 1, N, N)."""
    counts = F.conv2d(real, real.new_ones(1, 1, kernel_size, kernel_size), padding=kernel_size // 2).round()
    return torch.where(counts > 0, 1.0 / counts.clamp(min=1.0), 0.0)


class ContextQueryAttention(nn.Module):
    """Context-query attention, both ways under a trilinear similarity."""

    def __init__(self, dim: int, drop_rate: float) -> None:
        super().__init__()
        self.w4C = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))
        self.w4Q = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))
        self.w4mlu = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, dim)))
        self.dropout = Dropout(drop_rate)
        self.cqa_linear = Conv1D(4 * dim, dim)

    def forward(self, context: Tensor, query: Tensor, c_mask: Tensor, q_mask: Tensor) -> Tensor:
        """Attend: context (B, T, D), query (B, L, D), c_mask (B, T), q_mask (B, L) -> (B, T, D)."""
        score = self.similarity(context, query)
        to_words = mask_logits(score, q_mask.unsqueeze(1)).softmax(dim=2).to(score.dtype)
        to_context = mask_logits(score, c_mask.unsqueeze(2)).softmax(dim=1).to(score.dtype)
        attended = to_words @ query
        # The words gather the context first: T·L·D products, where (T, L) @ (L, T) first makes T·T·D.
        returned = to_words @ (to_context.transpose(1, 2) @ context)
        joined = torch.cat([context, attended, context * attended, context * returned], dim=2)
        return self.cqa_linear(joined)

    def similarity(self, context: Tensor, query: Tensor) -> Tensor:
        """Compute w_c·c + w_q·q + w_m·(c ⊙ q) for every pair: (B, T, L)."""
        context, query = self.dropout(context), self.dropout(query)
        products = (context * self.w4mlu) @ query.transpose(1, 2)
        return context @ self.w4C + (query @ self.w4Q).transpose(1, 2) + products


class WeightedPool(nn.Module):
    """Weighted average of a sequence."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, 1)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Average: x (B, L, D), mask (B, L) -> (B, D)."""
        weights = mask_logits(x @ self.weight, mask.unsqueeze(2)).softmax(dim=1).to(x.dtype)
        return (x * weights).sum(dim=1)


class ConcatenatePooled(nn.Module):
    """Layer that gives every position the pooled query."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weighted_pool = WeightedPool(dim)
        self.conv1d = Conv1D(2 * dim, dim)

    def forward(self, context: Tensor, query: Tensor, q_mask: Tensor) -> Tensor:
        """Join: context (B, T, D), query (B, L, D), q_mask (B, L) -> (B, T, D)."""
        for_context, for_query = self.conv1d.weight.chunk(2, dim=1)
        # The query's share is the same at every position, so it is computed once rather than T times.
        share = F.linear(self.weighted_pool(query, q_mask), for_query, self.conv1d.conv1d.bias)
        return F.linear(context, for_context) + share.unsqueeze(1)


class VSLFuser(nn.Module):
    """Fusion of clips (or proposals) and words as in VSLNet: by context-query attention, then the pooled query.

    TR-DETR fuses its modalities with it, too.
    """

    def __init__(self, dim: int, drop_rate: float) -> None:
        super().__init__()
        self.cq_attention = ContextQueryAttention(dim, drop_rate)
        self.cq_concat = ConcatenatePooled(dim)

    def forward(self, vfeats: Tensor, qfeats: Tensor, vmask: Tensor, qmask: Tensor) -> Tensor:
        """Fuse: vfeats (B, T, D), qfeats (B, L, D), vmask (B, T), qmask (B, L) -> (B, T, D)."""
        fused = self.cq_attention(vfeats, qfeats, vmask, qmask)
        return self.cq_concat(fused, qfeats, qmask).relu()


class LSTMBlock(nn.Module):
    """Bidirectional LSTM over the real clips, projected back to the model's width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.dense_output = Conv1D(2 * dim, dim)

    def forward(self, target: Tensor, lengths: Tensor) -> Tensor:
        """Encode: target (B, T, D), real positions first, lengths (B,) long on the CPU -> (B, T, D)."""
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
        lengths = count_real(mask).cpu()  # waits for a GPU: once for both LSTMs, which want them there
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
