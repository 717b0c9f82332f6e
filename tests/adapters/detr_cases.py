"""Random inputs for the models of the DETR family, and our models beside upstream's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin.adapters.detr.config import DETRConfig, MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.adapters.moment_detr import MomentDETR
from hero_plugin.adapters.qd_detr import QDDETR
from hero_plugin.adapters.tr_detr import TRDETR

MODELS: dict[str, tuple[type[nn.Module], type[DETRConfig]]] = {
    "moment_detr": (MomentDETR, MomentDETRConfig),
    "qd_detr": (QDDETR, QDDETRConfig),
    "tr_detr": (TRDETR, TRDETRConfig),
}
TEXT_DIM, VIDEO_DIM = 12, 18
SMALL = {"text_dim": TEXT_DIM, "video_dim": VIDEO_DIM, "dim_feedforward": 64}
WITHOUT_DROPOUT = {"input_dropout": 0.0, "dropout": 0.0, "vsl_dropout": 0.0}


def build(name: str, **fields: Any) -> nn.Module:
    """A small model without dropout."""
    model, config = MODELS[name]
    return model(config(**{**SMALL, **WITHOUT_DROPOUT, **fields}))


@dataclass
class Case:
    """A batch of random lengths; the first video and the first query are full."""

    text: Tensor
    text_mask: Tensor
    video: Tensor
    video_mask: Tensor

    @classmethod
    def random(cls, batch: int, clips: int, words: int, seed: int = 0, video_dim: int = VIDEO_DIM) -> Case:
        draw = torch.Generator().manual_seed(seed)
        masks = []
        for length in (words, clips):
            lengths = torch.randint(1, length + 1, (batch,), generator=draw)
            lengths[0] = length
            masks.append((torch.arange(length) < lengths.unsqueeze(1)).float())
        text = torch.randn(batch, words, TEXT_DIM, generator=draw) * masks[0].unsqueeze(-1)
        video = torch.randn(batch, clips, video_dim, generator=draw) * masks[1].unsqueeze(-1)
        return cls(text, masks[0], video, masks[1])

    def inputs(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        return self.text.to(dtype), self.text_mask, self.video.to(dtype), self.video_mask


def flat(outputs: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor of nested dicts and lists, by its path."""
    if isinstance(outputs, Tensor):
        return {prefix: outputs}
    pairs = outputs.items() if isinstance(outputs, dict) else enumerate(outputs)
    return {path: tensor for key, part in pairs for path, tensor in flat(part, f"{prefix}.{key}").items()}


def total(outputs: Any) -> Tensor:
    """A number that every output moves, each element differently."""
    return sum(
        (tensor * torch.linspace(0.5, 1.5, tensor.numel(), dtype=tensor.dtype).view_as(tensor)).sum()
        for tensor in flat(outputs).values()
    )
