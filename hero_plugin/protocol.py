"""The protocol of a base: embed a pair, ground it, and relate its clips to its words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import CellType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hero_plugin.aggregation import Kind, check_kinds
from hero_plugin.levels import fold, repeat_levels


@dataclass(frozen=True)
class Pair:
    """Pair of a video and a query, after the base's input projections.

    Tensors in ``extra`` have the batch first, alone or in containers, and are repeated for every level. What is not of
    that form is named in ``per_sample`` or ``constant``: no size is taken for a batch because it happens to be B.
    """

    video: Tensor
    """(B, T, D) clip features."""
    query: Tensor
    """(B, L, D) word features."""
    video_mask: Tensor
    """(B, T), 1/True at real clips, in the dtype that the base takes."""
    query_mask: Tensor
    """(B, L), 1/True at real words, in the dtype that the base takes."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the base's forward."""
    per_sample: tuple[str, ...] = ()
    """Names in ``extra`` whose lists of B items hold one per sample: names, or targets of any size."""
    constant: tuple[str, ...] = ()
    """Names in ``extra`` that are the same for every sample, and are passed on as they are."""
    levels: int = 1
    """N, how many levels the batch holds, level-major; the sizes above are then N*B for B."""
    reads_padding: bool = False
    """Whether the base reads padded words (an average over all places, say). They are then the same at every level;
    else a level's are zeros, but for those of level 0, which is the query itself."""
    same_video: bool = False
    """Whether the clips are those of level 0 at every level, as without SGVF: an adapter may then run what reads clips
    alone for the first B rows."""

    def __post_init__(self) -> None:
        for name in ("video", "query", "video_mask", "query_mask"):
            if not isinstance(getattr(self, name), Tensor):
                hint = ": torch.ones(...) where nothing is padded" if name.endswith("mask") else ""
                raise TypeError(f"a pair's {name} must be a tensor, got {type(getattr(self, name)).__name__}{hint}")

    def at_levels(self, video: Tensor, query: Tensor, same_video: bool = False) -> Pair:
        """Return the pair at N levels, folded level-major into the batch: (N, B, T, D), (N, B, L, D) -> (N*B, ...)."""
        levels, batch = video.shape[:2]
        if self.reads_padding:
            query = torch.where(self.query_mask.bool().unsqueeze(-1), query, self.query.to(query.dtype))
        extra = dict(self.extra)
        for name, value in self.extra.items():
            if name not in self.constant:
                extra[name] = repeat_levels(value, levels, batch, f"extra[{name!r}]", name in self.per_sample)
        masks = {name: repeat_levels(getattr(self, name), levels, batch, name) for name in ("video_mask", "query_mask")}
        return replace(
            self, video=fold(video), query=fold(query), extra=extra, levels=levels, same_video=same_video, **masks
        )


@dataclass(frozen=True)
class Grounding:
    """Answer of a base to a pair."""

    outputs: Any
    """The base's own outputs, every tensor with the batch first."""
    relevance: Tensor | None
    """(B, T) relevance logits of the clips; None if the base has no clip score."""


class Fuser(Protocol):
    """Module that turns a pair of modalities into clip features that have seen the query."""

    def __call__(self, video: Tensor, query: Tensor, video_mask: Tensor, query_mask: Tensor) -> Tensor:
        """Fuse (B, T, D), (B, L, D) under masks (B, T), (B, L) -> (B, T, D')."""


class Predictor(Protocol):
    """Module that turns fused clip features into the base's outputs."""

    def __call__(self, fused: Tensor, video_mask: Tensor) -> Any:
        """Predict from (B, T, D') under a mask (B, T) -> outputs, every tensor with the batch first."""


@runtime_checkable
class Grounder(Protocol):
    """Base as HERO sees it.

    ``HeroModel`` knows nothing else of a base but for what it may have besides: ``complete``, ``methods``,
    ``optional_outputs``, ``part_of_batch`` and ``relevance_ranks``, as ``Adapter`` describes them.
    """

    @property
    def dim(self) -> int:
        """D, the hidden size of the pair."""

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """How each output combines over levels: see ``WeightedAggregation``."""

    def embed(self, *args: Any, **kwargs: Any) -> Pair:
        """Return the pair after the input projections, from the arguments of the base's forward."""

    def ground(self, pair: Pair) -> Grounding:
        """Fuse and predict."""

    def relate(self, pair: Pair) -> Tensor:
        """Fuse only, and return relevance logits (B, T)."""


class NoClipScore(ValueError):
    """A base has no score of its clips, but HERO needs one as their relevance."""


class TwoStage(nn.Module):
    """Grounder made of a fuser and a predictor, ready for ``wrap_model``.

    Args:
        fuser: ``(video, query, video_mask, query_mask) -> fused (B, T, D')``.
        predictor: ``(fused, video_mask) -> outputs``.
        dim: D, the size of the projected clip and word features.
        project_video: raw clip features -> (B, T, D); None takes them as they are.
        project_query: raw word features -> (B, L, D); None takes them as they are.
        relevance: fused -> (B, T) relevance logits: a module, or a method of the predictor; None if the model has no
            clip score, and then HERO's ``relevance="pair"`` provides one.
        kinds: how each output combines over levels, by its key or place: see ``WeightedAggregation``.
        reads_padding: whether the fuser reads padded words (an average over all places, say): see ``Pair``. None is
            no, with a warning where the fuser has a recurrent layer.

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
        reads_padding: bool | None = None,
    ) -> None:
        super().__init__()
        if reads_padding is None and any(isinstance(part, nn.RNNBase) for part in getattr(fuser, "modules", list)()):
            warnings.warn(
                f"{type(fuser).__name__} has a recurrent layer. If it runs over words without packing them, it reads "
                "padded ones: say reads_padding=True, or HERO does not start as this base. If not, say False",
                stacklevel=2,
            )
        parts = {"project_video": project_video, "project_query": project_query, "relevance": relevance}
        for name, part in {"fuser": fuser, "predictor": predictor, **parts}.items():
            _expect_part(name, part, optional=name in parts)
        self.reads_padding = bool(reads_padding)
        self.fuser, self.predictor, self.dim = fuser, predictor, dim
        self.project_video, self.project_query, self.relevance = project_video, project_query, relevance
        check_kinds(kinds or {})
        self.kinds: Mapping[str, Kind] = dict(kinds or {})

    def forward(self, video: Tensor, query: Tensor, video_mask: Tensor, query_mask: Tensor) -> Any:
        """Ground video (B, T, Dv) and query (B, L, Dq), masks (B, T) and (B, L) -> the predictor's outputs."""
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
        """Fuse only, and return relevance logits (B, T)."""
        if self.relevance is None:
            raise NoClipScore(
                "this TwoStage has no clip score: give it relevance=..., or wrap it with relevance='pair'"
            )
        return self.relevance(self._fuse(pair))

    def _fuse(self, pair: Pair) -> Tensor:
        return self.fuser(pair.video, pair.query, pair.video_mask, pair.query_mask)


def _expect_part(name: str, part: Any, optional: bool) -> None:
    """Raise ``TypeError`` for what cannot be called; warn of a function around a module, which copies do not copy."""
    if part is None and optional:
        return
    if not callable(part):
        meant = f"; wrap_model(..., relevance={part!r}) is the option of that name" if name == "relevance" else ""
        raise TypeError(f"TwoStage's {name} must be a module or a function, got {part!r}{meant}")
    around = [cell.cell_contents for cell in getattr(part, "__closure__", None) or () if cell != CellType()]
    if held := next((each for each in around if isinstance(each, nn.Module)), None):
        warnings.warn(
            f"TwoStage's {name} is a function around a {type(held).__name__}: a copy of the model, or an average of "
            "its weights, would go on with the original's. Give a module, or a method of one",
            stacklevel=3,
        )
