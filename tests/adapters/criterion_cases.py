"""Random outputs and targets of a DETR of the family, as its criterion sees them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.core.bases import lengths_mask

QUERIES, WORDS, WIDTH, MAX_V_L = 10, 6, 8, 75


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_outputs(
    lengths: tuple[int, ...], layers: int = 2, span_loss_type: str = "l1", seed: int = 0, dtype=torch.float32
) -> dict[str, Any]:
    """What the three models return together, every tensor a leaf that wants a gradient; ``lengths`` are the clips'."""
    random = seeded(seed)
    mask = lengths_mask(lengths, dtype)
    batch, clips = mask.shape

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=dtype)

    def unit(*shape: int) -> Tensor:
        return F.normalize(leaf(*shape), dim=-1)

    def spans() -> Tensor:
        return leaf(batch, QUERIES, 2).sigmoid() if span_loss_type == "l1" else leaf(batch, QUERIES, 2 * MAX_V_L)

    def layer() -> dict[str, Tensor]:
        queries = unit(batch, QUERIES, WIDTH)
        return {"pred_logits": leaf(batch, QUERIES, 2), "pred_spans": spans(), "proj_queries": queries}

    outputs: dict[str, Any] = {
        **layer(),
        "proj_txt_mem": unit(batch, WORDS, WIDTH),
        "saliency_scores": leaf(batch, clips),
        "saliency_scores_neg": leaf(batch, clips),
        "video_mask": mask,
        "src_txt_ed": leaf(batch, WORDS, WIDTH),
        "src_vid_ed": leaf(batch, clips, WIDTH),
        "src_vid_cls_ed": leaf(batch, WIDTH),
        "src_txt_cls_ed": leaf(batch, WIDTH),
    }
    if layers > 1:
        outputs["aux_outputs"] = [{**layer(), "proj_txt_mem": outputs["proj_txt_mem"]} for _ in range(layers - 1)]
    for tensor in leaves(outputs):
        tensor.requires_grad_()
    return outputs


def leaves(outputs: dict[str, Any]) -> list[Tensor]:
    """Every tensor of ``outputs`` but the mask."""
    own = [value for key, value in outputs.items() if key not in ("video_mask", "aux_outputs")]
    return own + [
        value for aux in outputs.get("aux_outputs", ()) for key, value in aux.items() if key != "proj_txt_mem"
    ]


def random_targets(
    lengths: tuple[int, ...],
    windows: tuple[int, ...],
    span_loss_type: str = "l1",
    saliency: bool = True,
    seed: int = 1,
    dtype=torch.float32,
) -> dict[str, Any]:
    """``windows[b]`` windows of sample b; saliency labels from 0 to 12, of the first video all 0."""
    random = seeded(seed)

    def spans(count: int, clips: int) -> Tensor:
        ends = torch.rand(count, 2, generator=random, dtype=dtype).sort(-1).values
        if span_loss_type == "ce":
            return (ends * clips).long()
        return torch.stack([ends.mean(-1), ends[:, 1] - ends[:, 0] + 0.01], dim=-1)

    targets: dict[str, Any] = {
        "span_labels": [{"spans": spans(count, clips)} for count, clips in zip(windows, lengths, strict=True)]
    }
    mask = lengths_mask(lengths, dtype)
    batch, clips = mask.shape
    labels = torch.randint(0, 13, (batch, clips), generator=random).to(dtype) * mask
    labels[0] = 0
    targets["src_pos_mask"] = (labels > 6).to(dtype)
    targets["src_txt_mask"] = lengths_mask((*(1 + 3 * place % WORDS for place in range(batch - 1)), WORDS))
    if saliency:
        inside = torch.tensor(lengths).unsqueeze(1)
        targets["saliency_pos_labels"] = torch.randint(0, 1000, (batch, 2), generator=random) % inside
        targets["saliency_neg_labels"] = torch.randint(0, 1000, (batch, 2), generator=random) % inside
        targets["saliency_all_labels"] = labels
    return targets


def training_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The one line of every training loop of the family."""
    return sum(losses[k] * weights[k] for k in losses if k in weights)
