"""A base from any two modules: a fuser and a predictor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from hero_plugin.aggregation import Kind
from hero_plugin.protocol import Fuser, Grounding, Pair, Predictor


class TwoStage(nn.Module):
    """Makes a grounder of a fuser and a predictor, ready for ``wrap_model``.

    Args:
        fuser: ``(video, query, video_mask, query_mask) -> fused (B, T, D')``.
        predictor: ``(fused, video_mask) -> outputs``.
        dim: D, the size of the projected clip and word features.
        project_video: raw clip features -> (B, T, D); None takes them as they are.
        project_query: raw word features -> (B, L, D); None takes them as they are.
        relevance: fused -> (B, T) relevance logits; None if the model has no clip score, and then HERO's
            ``relevance="pair"`` provides one.
        kinds: how each output combines over levels, by its key or place: ``"logits"``, ``"probability"``, ``"shared"``.
        reads_padding: whether the fuser reads padded words (an average over all places, say): see
            ``Pair``.

    Example:
        >>> score = nn.Sequential(nn.Linear(128, 1), nn.Flatten(1))  # a module, so that its weights are the base's
        >>> base = TwoStage(fuser, predictor, dim=128, relevance=score)
        >>> model = wrap_model(base, levels=4)
        >>> outputs = model(video, query, video_mask, query_mask)
    """

    def __init__(
        self,
        fuser: Fuser,
        predictor: Predictor,
        dim: int,
        project_video: Callable[[Tensor], Tensor] | None = None,
        project_query: Callable[[Tensor], Tensor] | None = None,
        relevance: Callable[[Tensor], Tensor] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        reads_padding: bool = False,
    ) -> None:
        super().__init__()
        self.reads_padding = reads_padding
        self.fuser, self.predictor, self.dim = fuser, predictor, dim
        self.project_video, self.project_query, self.relevance = project_video, project_query, relevance
        self.kinds: Mapping[str, Kind] = dict(kinds or {})

    def forward(self, video: Tensor, query: Tensor, video_mask: Tensor, query_mask: Tensor) -> Any:
        """video (B, T, Dv), query (B, L, Dq), masks (B, T) and (B, L), 1/True where real -> the predictor's outputs."""
        return self.ground(self.embed(video, query, video_mask, query_mask)).outputs

    def embed(self, video: Tensor, query: Tensor, video_mask: Tensor, query_mask: Tensor) -> Pair:
        """Project both modalities to D."""
        return Pair(
            video=video if self.project_video is None else self.project_video(video),
            query=query if self.project_query is None else self.project_query(query),
            video_mask=video_mask,
            query_mask=query_mask,
            reads_padding=self.reads_padding,
        )

    def ground(self, pair: Pair) -> Grounding:
        """Fuse, then predict."""
        fused = self._fuse(pair)
        relevance = None if self.relevance is None else self.relevance(fused)
        return Grounding(self.predictor(fused, pair.video_mask), relevance)

    def relate(self, pair: Pair) -> Tensor:
        """Fuse only: relevance logits (B, T)."""
        if self.relevance is None:
            raise ValueError("this TwoStage has no clip score: give it relevance=..., or wrap it with relevance='pair'")
        return self.relevance(self._fuse(pair))

    def _fuse(self, pair: Pair) -> Tensor:
        return self.fuser(pair.video, pair.query, pair.video_mask, pair.query_mask)
