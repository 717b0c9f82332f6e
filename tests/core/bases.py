"""Toy bases, small enough to run in every test, and the inputs and losses that go with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import settings
from torch import Tensor, nn

from hero_plugin import TwoStage

DIM, VIDEO_DIM, QUERY_DIM = 16, 6, 5
# How many examples a property gets: first calls are slow, so there is no deadline.
quick = settings(deadline=None, max_examples=25)
few = settings(deadline=None, max_examples=8)


class ToyFuser(nn.Module):
    """Every clip gathers the words it resembles. Blind to padding in both modalities."""

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, video: Tensor, query: Tensor, video_mask: Tensor, query_mask: Tensor) -> Tensor:
        real = query_mask.bool().unsqueeze(1)
        score = (video @ query.transpose(1, 2)).masked_fill(~real, -1e4).softmax(-1) * real
        fused = self.dropout(torch.tanh(self.mix(torch.cat([video, score.to(query.dtype) @ query], -1))))
        return fused * video_mask.to(fused.dtype).unsqueeze(-1)


class TuplePredictor(nn.Module):
    """Like EMB: a clip score in [0, 1], boundary logits that are -1e30 at padding, and a mask."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score, self.bounds = nn.Linear(dim, 1), nn.Linear(dim, 2)

    def forward(self, fused: Tensor, video_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        real = video_mask.bool()
        score = self.score(fused).squeeze(-1).sigmoid() * real
        start, end = self.bounds(fused).float().masked_fill(~real.unsqueeze(-1), -1e30).unbind(-1)
        return score, start, end, video_mask


class DictPredictor(nn.Module):
    """Like a DETR: classes and spans of M queries, saliency, auxiliary outputs, and things that are no tensors."""

    def __init__(self, dim: int, queries: int = 3) -> None:
        super().__init__()
        self.queries = queries
        self.classes, self.spans = nn.Linear(dim, 2 * queries), nn.Linear(dim, 2 * queries)
        self.saliency = nn.Linear(dim, 1)

    def forward(self, fused: Tensor, video_mask: Tensor) -> dict[str, Any]:
        pooled = fused.sum(1) / video_mask.sum(1, keepdim=True).clamp(min=1).to(fused.dtype)

        def heads(x: Tensor) -> dict[str, Tensor]:
            return {
                "pred_logits": self.classes(x).unflatten(-1, (self.queries, 2)),
                "pred_spans": self.spans(x).sigmoid().unflatten(-1, (self.queries, 2)),
            }

        return {
            **heads(pooled),
            "saliency_scores": self.saliency(fused).squeeze(-1),
            "video_mask": video_mask,
            "aux_outputs": [heads(pooled * 0.5), heads(pooled * 0.25)],
            "name": "toy",
            "nothing": None,
        }


def two_stage(predictor: nn.Module, head: nn.Module, dropout: float, kinds: dict[str, Any]) -> TwoStage:
    return TwoStage(
        ToyFuser(DIM, dropout),
        predictor,
        DIM,
        project_video=nn.Linear(VIDEO_DIM, DIM),
        project_query=nn.Linear(QUERY_DIM, DIM),
        relevance=nn.Sequential(head, nn.Flatten(1)),
        kinds=kinds,
    )


def tuple_base(dropout: float = 0.0) -> TwoStage:
    """A base whose outputs are a tuple; its clip score doubles as relevance."""
    predictor = TuplePredictor(DIM)
    return two_stage(predictor, predictor.score, dropout, {"0": "probability", "3": "shared"})


def dict_base(dropout: float = 0.0) -> TwoStage:
    """A base whose outputs are a dict; its saliency doubles as relevance."""
    predictor = DictPredictor(DIM)
    return two_stage(predictor, predictor.saliency, dropout, {"pred_spans": "probability", "video_mask": "shared"})


class Inputs(NamedTuple):
    """What the toy bases' forward takes, in order."""

    video: Tensor
    query: Tensor
    video_mask: Tensor
    query_mask: Tensor


def inputs(clips: tuple[int, ...] = (7, 4, 5), words: tuple[int, ...] = (5, 2, 3), dtype=torch.float32) -> Inputs:
    """Random features of the given lengths, with noise where there is padding."""
    video_mask, query_mask = lengths_mask(clips, dtype), lengths_mask(words, dtype)
    return Inputs(
        torch.randn(*video_mask.shape, VIDEO_DIM, dtype=dtype),
        torch.randn(*query_mask.shape, QUERY_DIM, dtype=dtype),
        video_mask,
        query_mask,
    )


def lengths_mask(lengths: tuple[int, ...], dtype=torch.float32) -> Tensor:
    """(B,) lengths -> (B, longest), 1 where real; at least one position wide."""
    return (torch.arange(max(1, *lengths)) < torch.tensor(lengths).unsqueeze(1)).to(dtype)


def labels(video_mask: Tensor) -> Tensor:
    """The first half of every video is its moment: (B, T)."""
    place = torch.arange(video_mask.shape[1])
    return ((place < video_mask.sum(1, keepdim=True) / 2) & video_mask.bool()).float()


def tensors(outputs: Any) -> list[Tensor]:
    """Every tensor in outputs of any structure, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        return [tensor for key in outputs if key != "hero" for tensor in tensors(outputs[key])]
    if isinstance(outputs, (tuple, list)):
        return [tensor for item in outputs for tensor in tensors(item)]
    return []


def task_loss(outputs: Any) -> Tensor:
    """A smooth loss that every output that needs a gradient takes part in; padding does not."""
    parts = [tensor for tensor in tensors(outputs) if tensor.requires_grad]
    return sum(F.softplus(part[part > -1e20].float()).mean() for part in parts)


def total_loss(model: Any, outputs: Any, video_mask: Tensor) -> Tensor:
    """The base's loss and HERO's, as a training loop adds them."""
    return task_loss(outputs) + model.weighted_hero_loss(labels(video_mask))


def shake(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """Move every trainable parameter away from where it starts: many start at zero."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                parameter.add_(scale * noise.to(parameter))
    return model


def difference(one: Any, other: Any) -> float:
    """The largest difference between two outputs."""
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    assert pairs
    return max(float((a.detach().double() - b.detach().double()).nan_to_num().abs().max()) for a, b in pairs)
