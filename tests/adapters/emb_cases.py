"""Random inputs for EMB, and its training loss as upstream's loop computes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hero_plugin.adapters.emb import EMBConfig

WORDS, FEATURES = 50, 24


def small_config(**fields: object) -> EMBConfig:
    sizes = {"word_size": WORDS + 2, "char_size": 30, "word_dim": 20, "char_dim": 8, "dim": 32}
    return EMBConfig(**{**sizes, "video_feature_dim": FEATURES, "drop_rate": 0.0, **fields})


def word_vectors(seed: int = 0) -> Tensor:
    return torch.randn(WORDS, 20, generator=torch.Generator().manual_seed(seed))


@dataclass
class Case:
    """A batch of random lengths; the first video and the first query are full."""

    word_ids: Tensor
    char_ids: Tensor
    video: Tensor
    v_mask: Tensor
    q_mask: Tensor
    starts: Tensor
    ends: Tensor

    @classmethod
    def random(cls, batch: int, clips: int, words: int, seed: int = 0, multiple: int = 1) -> Case:
        """Video lengths are multiples of `multiple`."""
        draw = torch.Generator().manual_seed(seed)
        v_len = torch.randint(1, clips // multiple + 1, (batch,), generator=draw) * multiple
        q_len = torch.randint(1, words + 1, (batch,), generator=draw)
        v_len[0], q_len[0] = clips, words
        v_mask = (torch.arange(clips) < v_len.unsqueeze(1)).float()
        q_mask = (torch.arange(words) < q_len.unsqueeze(1)).float()
        starts = (torch.rand(batch, generator=draw) * v_len).long()
        ends = starts + (torch.rand(batch, generator=draw) * (v_len - starts)).long()
        word_ids = torch.randint(1, WORDS + 2, (batch, words), generator=draw) * q_mask.long()
        word_ids[0, 0] = 1  # one unknown word, whose vector is learned
        return cls(
            word_ids=word_ids,
            char_ids=torch.randint(0, 30, (batch, words, 3), generator=draw),
            video=torch.randn(batch, clips, FEATURES, generator=draw) * v_mask.unsqueeze(-1),
            v_mask=v_mask,
            q_mask=q_mask,
            starts=starts,
            ends=ends,
        )

    def inputs(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Fresh copies, since upstream writes into what it is given."""
        given = (self.word_ids, self.char_ids, self.video.to(dtype), self.v_mask, self.q_mask)
        return tuple(tensor.clone() for tensor in given)

    def losses(self, model: nn.Module, outputs: tuple[Tensor, ...], threshold: float = 0.6) -> list[Tensor]:
        """Location, highlight and ranking loss; clips last 1.5 s."""
        h_score, start_logits, end_logits, proposals, p_score, p_mask = outputs
        moments = torch.stack([self.starts, self.ends], dim=-1)
        past = torch.tensor([0, 1])
        return [
            model.compute_loss(
                start_logits, end_logits, self.starts, self.ends, proposals, p_score, p_mask, threshold=threshold
            ),
            model.compute_highlight_loss(
                h_score, None, self.v_mask, moments, proposals, p_score, p_mask, threshold=threshold, extend=0.1
            ),
            model.compute_ranking_loss(
                (moments + past) * 1.5,
                (proposals + past) * 1.5 * p_mask.unsqueeze(-1),
                p_score,
                p_mask,
                min_iou=0.3,
                max_iou=0.7,
            ),
        ]


def total(losses: list[Tensor]) -> Tensor:
    location, highlight, ranking = losses
    return location + 5.0 * highlight + ranking
