"""Examples and batches of the DETRs, from annotated sentences."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hero_plugin.highlights import CLIP_LENGTH
from hero_plugin.integrations.detr_labels import DetrLabels, make_labels, seen_moments
from hero_plugin.integrations.feature_bank import BankCollate, FeatureBank
from hero_plugin.integrations.query_features import Queries
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.task import Batch


@dataclass(frozen=True, slots=True)
class DetrExample:
    """A query, ready for a batch."""

    record: Record
    video: int
    """Row of the feature bank."""
    labels: DetrLabels


def make_detr_examples(
    records: Sequence[Record],
    bank: FeatureBank,
    clip_length: float,
    scored_length: float = CLIP_LENGTH,
    *,
    learned: bool = False,
) -> list[DetrExample]:
    """Make one example per query, with all its moments.

    Args:
        records: The queries.
        bank: Features of their videos.
        clip_length: Seconds; 0 where a video's clips share its duration.
        scored_length: Seconds of the clips that annotators scored.
        learned: For training: queries about what was cut off a video are left out, with a warning.
    """
    made = []
    for record in records:
        row = bank.rows[record.video_id]
        clips = bank.clips(row)
        if not learned or seen_moments(record, clips, clip_length):
            made.append(DetrExample(record, row, make_labels(record, clips, clip_length, scored_length)))
    if len(made) < len(records):
        warnings.warn(
            f"{len(records) - len(made)} of {len(records)} queries to train on are about what --max-clips cuts off "
            "their video, and are left out",
            stacklevel=2,
        )
    return made


class DetrCollate(BankCollate):
    """The collate function of the DETRs.

    Inputs, of the requested rows: src_txt (R, L, Dq), src_vid (R, T, Dv + 2) float32, the last two of a clip being
    where it starts and ends in [0, 1]; src_txt_mask (R, L), src_vid_mask (R, T) float32. Of all: clips, words (B,)
    long, how many are real; durations (B,) float32 seconds; spans (B, W, 2) float32 with zeros for padding, windows
    (B,) long, how many are real; and the fields of ``DetrLabels``:
    hard_positive, hard_negative (B,) long, positives, negatives, scores, relevant (B, T) float32.
    """

    def __init__(self, bank: FeatureBank, queries: Queries) -> None:
        super().__init__(bank)
        self.queries = queries

    def __call__(self, items: Sequence[DetrExample], rows: Sequence[int] | None = None) -> Batch:
        rows = list(range(len(items)) if rows is None else rows)
        clips = [self.clips(item) for item in items]
        videos = [items[row].video for row in rows]
        v_mask = self.bank.mask(videos, max(clips))
        words, q_mask = self.queries.batch([item.record for item in items])
        labels = [item.labels for item in items]
        return {
            "src_txt": torch.from_numpy(words[rows]),
            "src_txt_mask": torch.from_numpy(q_mask[rows].astype(np.float32)),
            "src_vid": self.bank.tensor(videos, v_mask, endpoints(v_mask.sum(1), v_mask)),
            "src_vid_mask": torch.from_numpy(v_mask.astype(np.float32)),
            "clips": torch.tensor(clips),
            "words": torch.from_numpy(q_mask.sum(1)),
            "durations": torch.tensor([item.record.duration for item in items], dtype=torch.float32),
            "spans": _padded([each.spans for each in labels]),
            "windows": torch.tensor([len(each.spans) for each in labels]),
            "hard_positive": torch.tensor([each.hard_positive for each in labels]),
            "hard_negative": torch.tensor([each.hard_negative for each in labels]),
            "positives": _padded([each.positives for each in labels]),
            "negatives": _padded([each.negatives for each in labels]),
            "scores": _padded([each.scores for each in labels]),
            "relevant": _padded([each.relevant for each in labels]),
        }


def endpoints(clips: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return where each clip starts and ends as a share of its video, (B, T, 2) float32, 0 at padding."""
    count = clips[:, None].astype(np.float32)
    start = np.arange(mask.shape[1], dtype=np.float32) / count
    return np.stack([start, start + np.float32(1.0) / count], axis=-1) * mask[..., None]


def _padded(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack arrays as (B, longest, ...) float32, zeros for padding, at least one long."""
    longest = max(1, *(len(array) for array in arrays))
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), np.float32)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)
