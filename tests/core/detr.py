"""Small models of the DETR family, and a batch for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hero_plugin.adapters.detr.config import MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.adapters.moment_detr import MomentDETR
from hero_plugin.adapters.qd_detr import QDDETR
from hero_plugin.adapters.tr_detr import TRDETR
from tests.core.bases import QUERY_DIM, VIDEO_DIM, lengths_mask

SMALL: dict[str, Any] = {
    "text_dim": QUERY_DIM,
    "video_dim": VIDEO_DIM,
    "hidden_dim": 16,
    "nheads": 2,
    "dim_feedforward": 16,
    "num_queries": 4,
    "use_txt_pos": True,  # or the words' positions are never read, and get no gradient
    "input_dropout": 0.0,
    "dropout": 0.0,
}


def moment_detr(**changes: Any) -> MomentDETR:
    """The reference Moment-DETR."""
    return MomentDETR(MomentDETRConfig(**{**SMALL, **changes}))


def qd_detr(**changes: Any) -> QDDETR:
    """The reference QD-DETR."""
    return QDDETR(QDDETRConfig(**{**SMALL, **changes}))


def tr_detr(**changes: Any) -> TRDETR:
    """The reference TR-DETR."""
    return TRDETR(TRDETRConfig(**{**SMALL, "vsl_dropout": 0.0, **changes}))


class Batch(NamedTuple):
    """What the forward of a DETR takes, in order."""

    src_txt: Tensor
    src_txt_mask: Tensor
    src_vid: Tensor
    src_vid_mask: Tensor


def batch(clips: tuple[int, ...] = (7, 4, 5), words: tuple[int, ...] = (5, 2, 3), dtype=torch.float32) -> Batch:
    """Random features of the given lengths, with noise where there is padding."""
    video_mask, query_mask = lengths_mask(clips, dtype), lengths_mask(words, dtype)
    return Batch(
        torch.randn(*query_mask.shape, QUERY_DIM, dtype=dtype),
        query_mask,
        torch.randn(*video_mask.shape, VIDEO_DIM, dtype=dtype),
        video_mask,
    )
