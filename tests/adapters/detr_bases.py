"""Every base of the DETR family, by name, with batches, targets and the sum of losses that a training loop takes."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hero_plugin import Grounder
from hero_plugin.adapter import adapter_for
from hero_plugin.adapters.detr.config import DETRConfig, MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.adapters.moment_detr import MomentDETR
from hero_plugin.adapters.qd_detr import QDDETR
from hero_plugin.adapters.tr_detr import TRDETR
from hero_plugin.levels import map_tensors
from tests.adapters import authors
from tests.core.bases import lengths_mask

MODELS: dict[str, tuple[type[nn.Module], type[DETRConfig]]] = {
    "moment_detr": (MomentDETR, MomentDETRConfig),
    "qd_detr": (QDDETR, QDDETRConfig),
    "tr_detr": (TRDETR, TRDETRConfig),
}
"""The reference implementations."""
REFERENCES = tuple(f"reference.{name}" for name in MODELS)
BASES = (*REFERENCES, *authors.UPSTREAM, *authors.LIGHTHOUSE[:3])
"""Ours, the authors' and lighthouse's of each of the three models."""
DISTINCT = BASES[:6]
"""Without lighthouse's, which differ from the authors' in options and little else."""
RELATIVES = (*authors.LIGHTHOUSE[3:], "lighthouse.taskweave.hd2mr")
TEXT_DIM, VIDEO_DIM, AUDIO_DIM = 12, 18, 5
SMALL = {"text_dim": TEXT_DIM, "video_dim": VIDEO_DIM, "dim_feedforward": 64}
WITHOUT_DROPOUT = {"input_dropout": 0.0, "dropout": 0.0, "vsl_dropout": 0.0}


def by_name(names: Iterable[str]) -> pytest.MarkDecorator:
    """A test with each of these bases."""
    return pytest.mark.parametrize("name", [marked(name) for name in names])


def marked(name: str, *more: Any) -> Any:
    """A case of a base; of one from a clone it is marked ``upstream``."""
    return pytest.param(name, *more, marks=() if name.startswith(("reference.", "ours.")) else pytest.mark.upstream)


def model_of(name: str) -> str:
    """Which of the models a name means, whoever wrote the code."""
    return next(part for part in name.split(".") if part not in ("reference", "lighthouse"))


def build(name: str, audio: bool = False, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A base and its criterion; options are upstream's."""
    torch.manual_seed(0)
    if name.startswith("reference."):
        config = MODELS[model_of(name)][1](
            **{**SMALL, "video_dim": VIDEO_DIM + AUDIO_DIM * audio, "hidden_dim": 32, **options}
        )
        module = importlib.import_module(f"hero_plugin.adapters.{model_of(name)}")
        return getattr(module, f"build_{model_of(name)}")(config)
    if audio:
        options |= {"a_feat_dim": AUDIO_DIM, "a_feat_dir": "any"}
    if model_of(name) == "uvcom":
        options["num_queries"] = 30
    options.setdefault("mr2hd", not name.endswith("hd2mr"))
    return authors.build(name.removesuffix(".hd2mr"), **options)


def reference(name: str, **fields: Any) -> nn.Module:
    """A small model of ours, without dropout."""
    model, config = MODELS[name]
    return model(config(**{**SMALL, **WITHOUT_DROPOUT, **fields}))


def grounder_of(base: nn.Module) -> Grounder:
    """The base as HERO sees it, without HERO's modules."""
    return adapter_for(base)(base)


def batch(name: str, clips: tuple[int, ...] | None = None, words: tuple[int, ...] = (7, 3, 5)) -> dict[str, Any]:
    """What the base's forward takes, by name; noise where there is padding."""
    whole = 75 if model_of(name) == "taskweave" else 16  # TaskWeave's forward counts on 75 clips of 2 s
    video_mask, query_mask = (lengths_mask(n, torch.get_default_dtype()) for n in (clips or (whole, 9, 12), words))
    draw = torch.Generator().manual_seed(5)
    inputs: dict[str, Any] = {
        "src_txt": torch.randn(*query_mask.shape, TEXT_DIM, generator=draw),
        "src_txt_mask": query_mask,
        "src_vid": torch.randn(*video_mask.shape, VIDEO_DIM, generator=draw),
        "src_vid_mask": video_mask,
    }
    if model_of(name) == "cg_detr":  # two queries of one video: no negative pair
        inputs |= {"vid": ["one_0_150", "one_0_150", "two_0_150"], "qid": [1, 2, 3]}
    if model_of(name) == "taskweave":
        inputs["epoch_i"] = 3
    return inputs


def targets(inputs: dict[str, Any]) -> dict[str, Any]:
    """The second quarter of every video is its moment, and salient; the second sample has a second moment."""
    mask = inputs["src_vid_mask"]
    clips = mask.sum(1, keepdim=True)
    place = torch.arange(mask.shape[1])
    salient = ((place >= clips // 4) & (place < clips // 2)).float()
    spans = [torch.tensor([[0.375, 0.25]]) for _ in mask]
    spans[1] = torch.tensor([[0.375, 0.25], [0.8, 0.1]])
    return {
        "span_labels": [{"spans": span} for span in spans],
        "saliency_pos_labels": (clips // 4).long().expand(-1, 2),
        "saliency_neg_labels": torch.zeros(len(mask), 2, dtype=torch.long),
        "saliency_all_labels": salient * 4,
        "relevant_clips": salient * 4,
        "src_pos_mask": salient,
        "src_txt_mask": inputs["src_txt_mask"],
    }


def run(name: str, model: nn.Module, inputs: dict[str, Any]) -> Any:
    """One forward as the base's training loop calls it."""
    extra = {"targets": targets(inputs)} if model_of(name) == "cg_detr" and model.training else {}
    return model(**inputs, **extra)


def loss(criterion: nn.Module, outputs: Any, inputs: dict[str, Any]) -> Tensor:
    """The line of every training loop of the family."""
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    losses = criterion(outputs, targets(inputs))
    return sum(losses[key] * criterion.weight_dict[key] for key in losses if key in criterion.weight_dict)


def step(name: str, model: nn.Module, criterion: nn.Module, seed: int = 2) -> tuple[Any, Tensor]:
    """Outputs and loss of one training step, after its backward."""
    inputs = batch(name)
    torch.manual_seed(seed)
    model.zero_grad()
    outputs = run(name, model, inputs)
    total = loss(criterion, outputs, inputs)
    if total.requires_grad:
        total.backward()
    return outputs, total


def without_dropout(model: nn.Module) -> nn.Module:
    """Nothing random is left in training, wherever a codebase keeps its rates."""
    for module in model.modules():
        for rate in ("p", "dropout", "drop_prob"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    return model


def flat(outputs: Any, path: str = "") -> dict[str, Tensor]:
    """Every tensor by its path, in outputs of any structure."""
    if isinstance(outputs, Tensor):
        return {path: outputs}
    pairs = outputs.items() if isinstance(outputs, dict) else ()
    pairs = enumerate(outputs) if isinstance(outputs, (tuple, list)) else pairs
    return {name: tensor for key, part in pairs for name, tensor in flat(part, f"{path}.{key}").items()}


def repeated(outputs: Any, kinds: Mapping[str, Any], levels: int) -> Any:
    """What a base would return for a batch of the same samples ``levels`` times."""
    return map_tensors(lambda x, key: x if kinds.get(key) == "whole" else torch.cat([x] * levels), outputs)


def total(outputs: Any) -> Tensor:
    """A number that every output moves, each element differently."""
    return sum(
        (tensor * torch.linspace(0.5, 1.5, tensor.numel(), dtype=tensor.dtype).view_as(tensor)).sum()
        for tensor in flat(outputs).values()
    )


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
