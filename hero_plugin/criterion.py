"""HERO's losses inside a DETR criterion's dict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin.config import HeroConfig
from hero_plugin.losses import hero_losses


def wrap_criterion(criterion: nn.Module, config: HeroConfig | None = None) -> HeroCriterion:
    """Add ``loss_relevance`` and ``loss_consistency`` to a DETR criterion and to its ``weight_dict``.

    The usual line ``sum(loss_dict[k] * weight_dict[k] for k in loss_dict if k in weight_dict)`` then trains HERO.

    Args:
        criterion: a ``SetCriterion``: ``criterion(outputs, targets) -> dict`` with a ``weight_dict``, whose targets
            carry ``span_labels``, a list of ``{"spans": (moments, 2)}`` in normalized (center, width).
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
        """The criterion's losses, and HERO's where ``outputs`` come from a wrapped model in training."""
        losses = dict(self.criterion(outputs, targets, *args, **kwargs))
        hero = outputs.get("hero")
        if hero is not None:
            labels = clip_labels([target["spans"] for target in targets["span_labels"]], hero["video_mask"])
            losses.update(
                hero_losses(
                    hero["relevance"],
                    hero.get("masked_relevance"),
                    labels,
                    hero["video_mask"],
                    self.config.consistency,
                )
            )
        return losses

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules") or {}
            if "criterion" not in modules:
                raise
            return getattr(modules["criterion"], name)


def clip_labels(spans: list[Tensor], video_mask: Tensor) -> Tensor:
    """Which clips lie inside a moment, from normalized spans; several moments are a union.

    Args:
        spans: for each query (moments, 2), center and width in [0, 1] of the video's real length.
        video_mask: (B, T), 1/True at real clips.

    Returns:
        (B, T) float, 1 for a clip whose middle lies in a moment, and for the clip that holds a shorter moment's middle.
    """
    real = video_mask.bool()
    clips = real.sum(-1).clamp(min=1)
    most = max((len(query) for query in spans), default=0)
    padded = torch.full((len(spans), most, 2), -1.0, device=video_mask.device)
    for row, query in zip(padded, spans, strict=True):
        row[: len(query)] = query.detach()
    place = torch.arange(real.shape[-1], device=real.device)
    middle = ((place + 0.5) / clips.unsqueeze(-1)).unsqueeze(1)
    center, width = padded[..., :1], padded[..., 1:]
    holds = (center * clips.view(-1, 1, 1)).floor() == place
    inside = (((middle - center).abs() <= width / 2) | holds) & (width > 0)
    return (inside.any(1) & real).float()
