"""Random batches as the training scripts take them; the first video and the first query are of full length."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from hero_plugin import clip_labels
from hero_plugin.integrations.bench.sizes import Sizes
from hero_plugin.integrations.task import Batch

VOCABULARY = 1000
CLIP_SECONDS = 2.0
HIGHEST_SCORE = 4.0
MOST_MOMENTS = 2


def emb_batch(sizes: Sizes, draw: Generator) -> Batch:
    """Return a batch with the keys and shapes of ``EmbCollate``."""
    clips, v_mask = random_lengths(sizes.batch, sizes.clips, draw)
    _, q_mask = random_lengths(sizes.batch, sizes.words, draw)
    word_ids = torch.randint(1, VOCABULARY + 2, q_mask.shape, generator=draw) * q_mask.long()
    video = torch.randn(*v_mask.shape, sizes.video_dim, generator=draw) * v_mask.unsqueeze(-1)
    first = (torch.rand(sizes.batch, generator=draw) * clips).long()
    last = first + (torch.rand(sizes.batch, generator=draw) * (clips - first)).long()
    return {
        "word_ids": word_ids,
        "q_mask": q_mask,
        "video": video,
        "v_mask": v_mask,
        "clips": clips,
        "durations": clips * CLIP_SECONDS,
        "first": first,
        "last": last,
    }


def detr_batch(sizes: Sizes, draw: Generator) -> Batch:
    """Return a batch with the keys and shapes of ``DetrCollate``, with one or two moments per query."""
    clips, v_mask = random_lengths(sizes.batch, sizes.clips, draw)
    words, q_mask = random_lengths(sizes.batch, sizes.words, draw)
    width = 0.05 + 0.25 * torch.rand(sizes.batch, MOST_MOMENTS, generator=draw)
    start = torch.rand(sizes.batch, MOST_MOMENTS, generator=draw) * (1 - width)
    windows = torch.randint(1, MOST_MOMENTS + 1, (sizes.batch,), generator=draw)
    spans = torch.stack([start + width / 2, width], dim=-1)
    spans = spans * (torch.arange(MOST_MOMENTS) < windows.unsqueeze(1)).unsqueeze(-1)
    inside = clip_labels([row[:count] for row, count in zip(spans, windows.tolist(), strict=True)], v_mask)
    return {
        "src_txt": torch.randn(*q_mask.shape, sizes.text_dim, generator=draw) * q_mask.unsqueeze(-1),
        "src_txt_mask": q_mask,
        "src_vid": torch.randn(*v_mask.shape, sizes.video_dim, generator=draw) * v_mask.unsqueeze(-1),
        "src_vid_mask": v_mask,
        "clips": clips,
        "words": words,
        "durations": clips * CLIP_SECONDS,
        "spans": spans,
        "windows": windows,
        "hard_positive": torch.full_like(windows, -1),
        "hard_negative": torch.full_like(windows, -1),
        "positives": inside,
        "negatives": v_mask - inside,
        "scores": inside * HIGHEST_SCORE,
        "relevant": inside,
    }


def random_lengths(count: int, longest: int, draw: Generator) -> tuple[Tensor, Tensor]:
    """Draw lengths from a third of ``longest`` on: (count,) long, and their mask (count, longest) float32."""
    lengths = torch.randint(-(-longest // 3), longest + 1, (count,), generator=draw)
    lengths[0] = longest
    return lengths, (torch.arange(longest) < lengths.unsqueeze(1)).float()
