"""The task of EMB, plain or with HERO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin import HeroModel
from hero_plugin.adapters.emb import EMBConfig, elastic_threshold
from hero_plugin.attention import at_least_float32
from hero_plugin.integrations.batches import EmbCollate, Example
from hero_plugin.integrations.grounding import Grounded, score
from hero_plugin.integrations.task import Batch, Prediction, Scores, level_gauges


class EmbTask:
    """EMB's losses and predictions, after its authors' ``main.py``.

    Args:
        model: EMB, plain or wrapped.
        collate: Makes its batches.
        settings: The sizes and weights of EMB.
        epochs: Length of the training, over which the labels become elastic.
    """

    scores_clips = False
    file_for_each_set = False
    unused_parameters = ()
    following_rows = 0

    def __init__(self, model: nn.Module, collate: EmbCollate, settings: EMBConfig, epochs: int) -> None:
        self.model, self.collate, self.settings, self.epochs = model, collate, settings, epochs

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Compute EMB's three losses; the wrapped model's ``compute_loss`` adds HERO's two."""
        outputs = run(model, batch)
        # The forward may run in half precision; cross-entropies on probabilities must not.
        with torch.autocast(batch["video"].device.type, enabled=False):
            return self._losses(model, tuple(map(at_least_float32, outputs)), batch, epoch)

    def _losses(self, model: nn.Module, outputs: tuple[Tensor, ...], batch: Batch, epoch: int) -> dict[str, Tensor]:
        settings = self.settings
        h_score, start_logits, end_logits, proposals, p_score, p_mask = outputs
        first, last = batch["first"], batch["last"]
        clips = torch.stack([first, last], dim=-1)
        real = torch.arange(h_score.shape[1], device=h_score.device) < batch["clips"].unsqueeze(1)
        threshold = elastic_threshold(epoch, self.epochs, settings.threshold)
        highlight = model.compute_highlight_loss(
            h_score,
            None,
            real.to(h_score.dtype),
            clips,
            proposals,
            p_score,
            p_mask,
            threshold=threshold,
            extend=settings.extend,
        )
        location = model.compute_loss(
            start_logits, end_logits, first, last, proposals, p_score, p_mask, threshold=threshold
        )
        seconds = (batch["durations"] / batch["clips"])[:, None]
        ranking = model.compute_ranking_loss(
            in_seconds(clips, seconds),
            in_seconds(proposals, seconds[:, None]) * p_mask.unsqueeze(-1),
            p_score,
            p_mask,
            min_iou=settings.min_iou,
            max_iou=settings.max_iou,
        )
        losses = {"loss": location + settings.highlight_lambda * highlight + settings.rank_lambda * ranking}
        if isinstance(model, HeroModel):
            added = model.hero_losses()
            losses.update(added)
            location = location - sum(model.config.loss_weights[name] * value for name, value in added.items())
        return {**losses, "loss_location": location, "loss_highlight": highlight, "loss_ranking": ranking}

    def predict(self, model: nn.Module, batch: Batch) -> Prediction:
        """Predict the most probable boundaries, as EMB reports by default (not its elastic ones)."""
        outputs = run(model, batch)
        h_score, start_logits, end_logits = map(at_least_float32, outputs[:3])
        first, last = model.predictor.extract_index(start_logits, end_logits)
        seconds = (batch["durations"] / batch["clips"])[:, None]
        moments = in_seconds(torch.stack([first, last], dim=-1), seconds)
        score = _chosen(start_logits, first) * _chosen(end_logits, last)
        relevance = getattr(model, "relevance", None)
        relevance = h_score if relevance is None else at_least_float32(relevance).sigmoid()
        return Prediction(moments.unsqueeze(1), score.unsqueeze(1), relevance * batch["v_mask"])

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """Return the logits of the start, of the end and, with HERO, of the clips' relevance."""
        _, start_logits, end_logits, *_ = run(model, batch) if outputs is None else outputs
        relevance = [model.relevance] if isinstance(model, HeroModel) and model.relevance is not None else []
        return [*map(at_least_float32, (start_logits, end_logits, *relevance))], batch["v_mask"]

    def truth(self, item: Example) -> Sequence[tuple[float, float]]:
        """Return the annotated moments in seconds."""
        return item.record.moments

    def scores(self, items: Sequence[Example], grounded: Grounded) -> Scores:
        """Score a set: R1@0.3, R1@0.5, R1@0.7 and mIoU."""
        return score(self, items, grounded)

    def merit(self, scores: Scores) -> float:
        """Return the sum of the four scores."""
        return sum(scores.values())

    def prediction_lines(self, name: str, items: Sequence[Example], grounded: Grounded) -> list[dict[str, Any]]:
        """Return ids, the moment in seconds, and the probability of its boundaries, per query."""
        return [
            {
                "set": name,
                "query_id": item.record.query_id,
                "video_id": item.record.video_id,
                "sentence": item.record.sentence,
                "moment": [round(float(time), 3) for time in grounded.moments[index, 0]],
                "score": round(float(grounded.scores[index, 0]), 6),
            }
            for index, item in enumerate(items)
        ]

    def gauges(self, model: nn.Module) -> dict[str, list[float]]:
        """Return the weights of the levels."""
        return level_gauges(model)


def run(model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """Run EMB's forward on a batch."""
    return model(batch["word_ids"], None, batch["video"], batch["v_mask"], batch["q_mask"])


def in_seconds(clips: Tensor, seconds: Tensor) -> Tensor:
    """Convert first and last clip (..., 2), inclusive, to start and end; ``seconds`` is the length of one clip."""
    return torch.stack([clips[..., 0], clips[..., 1] + 1], dim=-1) * seconds


def _chosen(logits: Tensor, index: Tensor) -> Tensor:
    return logits.softmax(-1).gather(1, index[:, None]).squeeze(1)
