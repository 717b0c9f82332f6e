"""HERO's losses inside a DETR criterion's dict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hero_plugin.config import HeroConfig
from hero_plugin.losses import consistency_loss, hero_losses

BORDER = 1e-3
"""How near, in clips, counts as touching: far above float32's rounding, far below what an annotation means."""


def wrap_criterion(criterion: nn.Module, config: HeroConfig | None = None) -> HeroCriterion:
    """Add ``loss_relevance`` and ``loss_consistency`` to a DETR criterion and to its ``weight_dict``.

    The usual line ``sum(loss_dict[k] * weight_dict[k] for k in loss_dict if k in weight_dict)`` then trains HERO.

    Args:
        criterion: a ``SetCriterion``: ``criterion(outputs, targets) -> dict`` with a ``weight_dict``, whose targets
            carry ``span_labels``, a list of ``{"spans": (moments, 2)}``: normalized (center, width), or the first and
            the last clip where the criterion's ``span_loss_type`` is ``"ce"``. Without them, or where the criterion
            ignores them (``use_matcher=False``, highlights alone), nothing says which clips are relevant: only
            ``loss_consistency``, which needs no labels, is added.
        config: where the weights and the kind of consistency come from; None is ``HeroConfig()``.

    Example:
        >>> model = wrap_model(model)
        >>> criterion = wrap_criterion(criterion, model.config)
    """
    if not isinstance(getattr(criterion, "weight_dict", None), dict):
        raise TypeError(
            f"{type(criterion).__name__} has no dict weight_dict: wrap_criterion serves DETR criteria. A model "
            "that computes its own losses needs none: the wrapped model's compute_loss adds HERO's"
        )
    return HeroCriterion(criterion, config or HeroConfig())


class HeroCriterion(nn.Module):
    """A DETR criterion with HERO's losses; attributes that are not here come from the criterion."""

    def __init__(self, criterion: nn.Module, config: HeroConfig) -> None:
        super().__init__()
        self.criterion = criterion
        self.config = config
        self.weight_dict: dict[str, float] = criterion.weight_dict  # type: ignore[assignment]
        self.weight_dict.update(config.loss_weights)

    def forward(self, outputs: dict[str, Any], targets: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the criterion's losses, and HERO's where ``outputs`` come from a wrapped model in training."""
        hero = outputs.get("hero")
        if hero is None:
            return dict(self.criterion(outputs, targets, *args, **kwargs))
        # A criterion that walks over its outputs must meet the base's alone.
        outputs = {name: output for name, output in outputs.items() if name != "hero"}
        losses = dict(self.criterion(outputs, targets, *args, **kwargs))
        return {**losses, **self.hero_losses(hero, targets)}

    def hero_losses(self, hero: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``loss_relevance`` where moments are known, ``loss_consistency`` where masked words were used."""
        relevance, masked, video_mask = hero["relevance"], hero.get("masked_relevance"), hero["video_mask"]
        if "span_labels" in targets and getattr(self.criterion, "use_matcher", True):
            spans = [target["spans"] for target in targets["span_labels"]]
            labels = clip_labels(spans, video_mask, getattr(self.criterion, "span_loss_type", "l1"))
            return hero_losses(relevance, masked, labels, video_mask, self.config.consistency)
        if masked is None:
            return {}
        return {"loss_consistency": consistency_loss(relevance, masked, video_mask, self.config.consistency)}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules") or {}
            if "criterion" not in modules:
                raise
            return getattr(modules["criterion"], name)


def clip_labels(spans: list[Tensor], video_mask: Tensor, span_loss_type: str = "l1") -> Tensor:
    """Label the clips that lie inside a moment; several moments are a union.

    Args:
        spans: for each query (moments, 2), in the unit that a DETR of this ``span_loss_type`` is trained with.
        video_mask: (B, T), 1/True at real clips.
        span_loss_type: ``"l1"``: center and width in [0, 1] of the video's real length;
            ``"ce"``: whole numbers, the first and the last clip, both inside.

    Returns:
        (B, T) float. Of ``"l1"``, 1 for a clip whose middle lies in a moment, its ends included, and for the clip that
        holds a shorter moment's middle; none for a moment of no width, as padding is. Of ``"ce"``, 1 from the first to
        the last clip; where the last is before the first, as upstream's datasets have it for a moment that ends in
        the clip it starts in, the first alone.
    """
    if len(spans) != len(video_mask):
        raise ValueError(f"spans must hold one (moments, 2) for each of {len(video_mask)} queries, got {len(spans)}")
    if span_loss_type == "l1" and any(len(query) and not query.is_floating_point() for query in spans):
        raise ValueError(
            "spans must be normalized (center, width), got whole numbers: clip indices go with span_loss_type='ce'"
        )
    real = video_mask.bool()
    padded = pad_sequence([query.detach().reshape(-1, 2) for query in spans], batch_first=True, padding_value=-1)
    padded = padded.to(real.device, torch.promote_types(padded.dtype, torch.float32))
    place = torch.arange(real.shape[-1], device=real.device)
    if span_loss_type == "ce":
        first, last = padded[..., :1], padded.amax(-1, keepdim=True)
        inside = (place >= first) & (place <= last)
    else:
        clips = real.sum(-1).clamp(min=1).view(-1, 1, 1)
        center, width = padded[..., :1] * clips, padded[..., 1:] * clips
        holds = (center + BORDER).floor() == place
        inside = (((place + 0.5 - center).abs() <= width / 2 + BORDER) | holds) & (width > 0)
    return (inside.any(1) & real).float()
