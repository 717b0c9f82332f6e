"""Batches of the DETRs: labels (spans, and the ranking of clips), examples, collate function.

Labels that upstream draws at random while it reads are kept as what they are drawn from: a training step draws, from
torch's generator, seeded anew each time. So a resumed run draws alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hero_plugin.integrations.data.feature_bank import BankCollate, FeatureBank
from hero_plugin.integrations.data.moments import ON_EDGE, lighthouse_clips
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.scoring.qvhighlights import CLIP_LENGTH
from hero_plugin.integrations.training.queries import Queries
from hero_plugin.integrations.training.task import Batch


@dataclass(frozen=True, slots=True)
class DetrLabels:
    """Labels of one query of a video of T clips."""

    spans: np.ndarray
    """(moments, 2) float32: center and width, the video being 1 long."""
    hard_positive: int
    """The clip that annotators like best; -1 where they gave no scores."""
    hard_negative: int
    """Of the clips with scores, the one they like least; -1 likewise."""
    positives: np.ndarray
    """(T,) float32: weights for drawing clips that should score high."""
    negatives: np.ndarray
    """(T,) float32: weights for drawing clips that should score low."""
    scores: np.ndarray
    """(T,) float32: annotators' scores, summed; 1 inside a moment where there are none."""
    relevant: np.ndarray
    """(T,) float32: 1 for the clips of the query."""


def make_labels(record: Record, clips: int, clip_length: float, scored_length: float = CLIP_LENGTH) -> DetrLabels:
    """Make labels as Moment-DETR's successors do on QVHighlights, and lighthouse on data without saliency scores.

    The video has ``clips`` clips of ``clip_length`` seconds, 0 where they share its duration; annotators scored clips
    of ``scored_length`` seconds.
    """
    length = clip_length or record.duration / clips
    moments = seen_moments(record, clips, clip_length) or record.moments
    spans = span_labels(moments, clips * clip_length or record.duration)
    if any(scores for _, scores in record.saliency):
        places = np.array([place for place, _ in record.saliency])
        given = np.array([sum(scores) for _, scores in record.saliency])
        if abs(length - scored_length) > ON_EDGE:
            places, given = _on_other_clips(places, given, scored_length, clips, length)
        return _from_scores(places, given, clips, spans)
    return _from_moments(moments, clips, length, spans)


def seen_moments(record: Record, clips: int, clip_length: float) -> Sequence[tuple[float, float]]:
    """Return the moments, or what is left of them where the video was cut after ``clips`` clips."""
    covered = clips * clip_length
    if not clip_length or record.duration - covered < clip_length:  # less than a clip is missing
        return record.moments
    return [(start, min(end, covered)) for start, end in record.moments if start < covered]


def span_labels(moments: Sequence[tuple[float, float]], duration: float) -> np.ndarray:
    """Convert moments in seconds to (moments, 2) float32, center and width as shares of ``duration``."""
    ends = np.asarray(moments, np.float32).reshape(-1, 2) / np.float32(duration)
    return np.stack([ends.sum(-1) * np.float32(0.5), ends[:, 1] - ends[:, 0]], axis=-1)


def _on_other_clips(
    places: np.ndarray, given: np.ndarray, scored_length: float, clips: int, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Convert scores of clips of ``scored_length`` seconds to scores of ``clips`` clips of ``length`` seconds.

    A clip has the score of the one that its middle is in. A scored clip without a middle in it scores the clip that
    its own middle is in; of several, the best counts.
    """
    holds = np.floor((np.arange(clips) + 0.5) * length / scored_length)
    found: dict[int, float] = {}
    for place, score in zip(places, given, strict=True):
        rows = np.flatnonzero(holds == place)
        for row in rows if len(rows) else [min(int((place + 0.5) * scored_length / length), clips - 1)]:
            found[int(row)] = max(score, found.get(int(row), -np.inf))
    return np.array([*found]), np.array([*found.values()])


def _from_scores(places: np.ndarray, given: np.ndarray, clips: int, spans: np.ndarray) -> DetrLabels:
    """Make labels as ``get_saliency_labels_all`` does. A scored clip beyond the last counts as the last in every draw.

    Upstream clamps the hard pair alone: its easy positive points past the video then, and TR-DETR's mask of
    relevant clips becomes empty.
    """
    inside = np.minimum(places, clips - 1)
    order = np.argsort(given)  # not stable: which of equals comes first depends on numpy, upstream as here
    worst, best = int(inside[order[0]]), int(inside[order[-1]])
    positives = np.bincount(inside, minlength=clips).astype(np.float32)
    negatives = np.ones(clips, np.float32)
    negatives[places[places < clips]] = 0.0
    if not negatives.any():  # no clip is free: the hard pair twice
        positives, negatives = (np.eye(clips, dtype=np.float32)[each] for each in (best, worst))
    scores, relevant = np.zeros((2, clips), np.float32)
    scores[places[places < clips]] = given[places < clips]
    relevant[inside] = 1.0
    return DetrLabels(spans, best, worst, positives, negatives, scores, relevant)


def _from_moments(
    moments: Sequence[tuple[float, float]], clips: int, clip_length: float, spans: np.ndarray
) -> DetrLabels:
    """Make labels as lighthouse's ``get_saliency_labels_sub_as_query``, but of the union of all moments."""
    inside, relevant = np.zeros((2, clips), np.float32)
    for start, end in moments:
        first, last = lighthouse_clips(start, end, clips, clip_length, ON_EDGE)
        inside[first : last + 1] = 1.0
        left, right = start / clip_length, end / clip_length
        first = min(math.floor(left + ON_EDGE), clips - 1)
        relevant[first : max(first + 1, math.ceil(right - ON_EDGE))] = 1.0
    outside = 1.0 - inside
    if outside.sum() < 2:  # too few to draw a pair from: the positives once more
        outside[:] = 0.0
    return DetrLabels(spans, -1, -1, inside, outside, inside, relevant)


MAX_MOMENTS = 5
"""Most moments of a query that a step trains on."""


def draw_targets(batch: Batch) -> dict[str, Any]:
    """Draw the targets of the criteria, from torch's generator, where upstream's data sets draw them."""
    spans, counts = draw_moments(batch["spans"], batch["moment_counts"])
    words = torch.arange(batch["src_txt"].shape[1], device=spans.device) < batch["words"].unsqueeze(1)
    high, low = draw_pairs(batch["positives"], batch["negatives"], batch["hard_positive"], batch["hard_negative"])
    return {
        "span_labels": [{"spans": row[:count]} for row, count in zip(spans, counts.tolist(), strict=True)],
        "saliency_pos_labels": high,
        "saliency_neg_labels": low,
        "saliency_all_labels": batch["scores"],
        "src_pos_mask": batch["relevant"],
        "src_txt_mask": words.to(batch["src_txt_mask"].dtype),
    }


def draw_pairs(
    positives: Tensor, negatives: Tensor, hard_positive: Tensor, hard_negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw two clips per query that should score high, and two that should score low: each (B, 2) long.

    Clips are drawn in proportion to ``positives`` and ``negatives`` (B, T); a row without negatives takes the positives
    that were drawn. A clip of ``hard_positive`` or ``hard_negative`` (B,) long comes first, before a drawn one; where
    it is -1, both are drawn, different ones where there are two.
    """
    high, low = _two(positives), _two(negatives)
    low = torch.where(negatives.sum(1, keepdim=True) > 0, low, high)
    return _with_hard(hard_positive, high), _with_hard(hard_negative, low)


def draw_moments(spans: Tensor, counts: Tensor, most: int = MAX_MOMENTS) -> tuple[Tensor, Tensor]:
    """Draw at most ``most`` moments per query, each equally likely.

    Of ``spans`` (B, M, 2), so many as ``counts`` (B,), long on the CPU, are real. Returns spans (B, M', 2) in their
    order, and their counts.
    """
    if spans.shape[1] <= most:
        return spans, counts
    keys = torch.rand(spans.shape[:2], device=spans.device)
    real = (torch.arange(spans.shape[1]) < counts.unsqueeze(1)).to(spans.device, non_blocking=True)
    chosen = keys.masked_fill(~real, -1.0).topk(most, dim=1).indices.sort(dim=1).values
    return spans.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2)), counts.clamp(max=most)


def _two(weights: Tensor) -> Tensor:
    """Draw two places per row (B, 2), without replacement, in proportion to ``weights`` (B, T); a lone one twice.

    A race of exponential clocks: ``torch.multinomial`` draws the same way, but refuses rows with one place, and
    waits for the device to check them.
    """
    clocks = torch.empty_like(weights).exponential_().clamp(min=torch.finfo(weights.dtype).tiny)
    speeds, places = (weights / clocks).topk(min(2, weights.shape[1]), dim=1)
    first, second = places[:, 0], torch.where(speeds[:, -1] > 0, places[:, -1], places[:, 0])
    return torch.stack([first, second], dim=1)


def _with_hard(hard: Tensor, drawn: Tensor) -> Tensor:
    scored = (hard >= 0).unsqueeze(1)
    return torch.where(scored, torch.stack([hard, drawn[:, 0]], dim=1), drawn)


@dataclass(frozen=True, slots=True)
class DetrExample:
    """A query, ready for a batch."""

    record: Record
    video: int
    """Row of the feature bank."""
    labels: DetrLabels


class DetrCollate(BankCollate):
    """The collate function of the DETRs.

    Inputs, of the requested rows: src_txt (R, L, Dq), or with ``levels`` (R, L, N, Dq / N), src_vid (R, T, Dv + 2)
    float32, the last two of a clip being where it starts and ends in [0, 1]; src_txt_mask (R, L), src_vid_mask (R, T)
    float32. Of all: clips, words (B,) long, how many are real; durations (B,) float32 seconds; spans (B, W, 2) float32
    with zeros for padding, moment_counts (B,) long, how many are real; and the fields of ``DetrLabels``:
    hard_positive, hard_negative (B,) long, positives, negatives, scores, relevant (B, T) float32.
    """

    def __init__(self, bank: FeatureBank, queries: Queries, levels: int | None = None) -> None:
        super().__init__(bank)
        self.queries, self.levels = queries, levels

    def __call__(self, items: Sequence[DetrExample], rows: Sequence[int] | None = None) -> Batch:
        """Make a batch; see ``BankCollate``."""
        rows = list(range(len(items)) if rows is None else rows)
        clips = [self.clips(item) for item in items]
        videos = [items[row].video for row in rows]
        v_mask = self.bank.mask(videos, max(clips))
        words, q_mask = self.queries.batch([item.record for item in items])
        labels = [item.labels for item in items]
        text = torch.from_numpy(words[rows])
        return {
            "src_txt": text if self.levels is None else text.unflatten(-1, (self.levels, -1)),
            "src_txt_mask": torch.from_numpy(q_mask[rows].astype(np.float32)),
            "src_vid": self.bank.tensor(videos, v_mask, endpoints(v_mask.sum(1), v_mask)),  # type: ignore[dict-item]
            "src_vid_mask": torch.from_numpy(v_mask.astype(np.float32)),
            "clips": torch.tensor(clips),
            "words": torch.from_numpy(q_mask.sum(1)),
            "durations": torch.tensor([item.record.duration for item in items], dtype=torch.float32),
            "spans": _padded([each.spans for each in labels]),
            "moment_counts": torch.tensor([len(each.spans) for each in labels]),
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
