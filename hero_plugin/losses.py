"""Clip relevance and the two losses on it, in float32 whatever the model computes in; their place in a criterion."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hero_plugin.config import CHOICES, LOSS_FIELDS, HeroConfig
from hero_plugin.levels import like_mapping
from hero_plugin.tensors import at_least_float32, check_mask, expect_shape, is_compiling, mean_of_words


class PairRelevance(nn.Module):
    """Per-clip relevance logits from a level's words and its filtered clips (``relevance="pair"``).

    The query is the mean of its real words; ``RS = w · relu(A v ⊙ B q + C v) + b`` for every clip ``v``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.clip = nn.Linear(dim, 2 * dim)
        self.word = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1)

    def forward(self, video: Tensor, levels: Tensor, query_mask: Tensor) -> Tensor:
        """Score video (N, B, T, D) with levels (N, B, L, D) and query_mask (B, L) -> logits (N, B, T)."""
        expect_shape("query_mask", query_mask, "B L", (None, None))
        batch, length = query_mask.shape
        expect_shape("levels", levels, "N B L D", (None, batch, length, self.dim))
        expect_shape("video", video, "N B T D", (levels.shape[0], batch, None, self.dim))
        sentence = mean_of_words(levels, query_mask)
        compared, alone = torch.chunk(self.clip(video), 2, dim=-1)
        return self.score(F.relu(compared * self.word(sentence).unsqueeze(-2) + alone)).squeeze(-1)


class RankedRelevance(nn.Module):
    """The clip score of a base that only ranks clips, as logits: ``RS = exp(a) (s - mean of s over the video) + b``.

    A saliency score is trained by comparing clips: its zero and its scale mean nothing, and negative pairs can push all
    of a video's scores far from zero, where a binary cross-entropy sees the offset alone. ``a`` and ``b`` are learned
    and start at zero; they have the shape (1,), as FSDP cannot shard a scalar. The consistency loss, a softmax over the
    clips, does not see the offset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale, self.offset = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with the centred score as it is."""
        nn.init.zeros_(self.log_scale)
        nn.init.zeros_(self.offset)

    def forward(self, score: Tensor, video_mask: Tensor) -> Tensor:
        """Turn scores (B, T), video_mask (B, T) 1/True at real clips -> logits (B, T); padded clips hold the offset.

        In float32 at least.
        """
        real = video_mask.bool()
        count = real.sum(-1, keepdim=True).clamp(min=1)
        score = at_least_float32(score)  # a sum over a long video is past what half precision can hold
        centred = score - score.masked_fill(~real, 0.0).sum(-1, keepdim=True) / count
        return self.log_scale.exp() * centred.masked_fill(~real, 0.0) + self.offset

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Older files have scalars here; torch itself takes (1,) for a scalar, so that older releases read newer ones.
        for name in (f"{prefix}log_scale", f"{prefix}offset"):
            if name in state_dict:
                state_dict[name] = state_dict[name].reshape(-1)
        super()._load_from_state_dict(state_dict, prefix, *rest)


LOSSES_LEFT_OUT = (
    "HERO's losses took no part in the last training steps. wrap_criterion(criterion, model.config) adds them to a "
    "DETR's, the wrapped model's compute_loss to EMB's, and loss + model.weighted_hero_loss(inside) to any other. "
    "To train without them, wrap the base with cmtr=False, relevance_weight=0.0, consistency_weight=0.0"
)
_HOW_TO_ADD = (
    "the optimizer does not have HERO's parameters. Make it after wrap_model, or add them: "
    "optimizer.add_param_group({'params': model.hero.parameters()})"
)
PARAMETERS_LEFT_OUT = f"the last two steps changed the base and nothing of HERO: {_HOW_TO_ADD}"
PATIENCE = 100
"""Backward passes of a frozen base until a step is missed: more than are accumulated into one."""
NOTHING_LEARNS = f"the base is frozen, and {PATIENCE} backward passes have changed nothing of HERO: {_HOW_TO_ADD}"


class Oversight:
    """Watch over a model's first training steps, until training is seen to work, or a warning is given.

    It reads the values of the first masks and labels and, of a frozen base, of HERO's parameters once or twice. Only
    what backward passes and optimizers did counts: not how often the model ran, as gradients may be accumulated, nor
    which function computed the losses.
    """

    labels_seen = False  # of the class: a model that was pickled by an earlier version has none

    def __init__(self) -> None:
        self.over = self.read = self.masks_seen = False
        self.backwards = self.steps = 0
        self.versions: list[int] = []
        self.start: float | None = None

    def see_masks(self, video_mask: Tensor, query_mask: Tensor) -> None:
        """Look at the first masks, once: what is not 1 at real places would be read the wrong way without an error.

        ``ValueError`` on values other than 0 and 1, as of a mask that is added to logits.
        """
        tracing = is_compiling() or torch.jit.is_tracing()
        if self.masks_seen or tracing or video_mask.is_meta or type(video_mask) is not Tensor:
            return  # values of a traced or fake tensor cannot be read
        self.masks_seen = True
        for name, what, mask in (("video_mask", "clips", video_mask), ("query_mask", "words", query_mask)):
            check_mask(name, what, mask)
            if empty := int((~mask.bool().any(-1)).sum()):
                warnings.warn(
                    f"{name} has no real {what} in {empty} of {len(mask)} samples: it is 1 at real {what}, 0 at "
                    "padding. Is it inverted?",
                    stacklevel=2,
                )

    def see_labels(self, labels: Tensor, video_mask: Tensor) -> None:
        """Look at the first labels, once, on any device; see ``relevance_loss``, which looks on the CPU alone.

        ``ValueError`` on labels over 1.
        """
        if self.labels_seen or is_compiling() or labels.is_meta:
            return
        self.labels_seen = True
        known = labels.detach()[video_mask.bool()].cpu()
        if not (known <= 1).all():
            raise ValueError("labels are 1 inside, 0 outside: these are larger, or NaN")
        if (known < 0).any() and (known > 0).any() and not (known == 0).any():
            warnings.warn(
                "labels below 0 are unknown, and none is 0, as outside the moment: are they -1 there?", stacklevel=3
            )

    def watch(self, base: nn.Module, hero: nn.Module, entry: Tensor, losses: Sequence[Tensor]) -> None:
        """Judge the steps before this forward, and watch its own backward.

        Args:
            base: its parameters change where an optimizer has them; torch counts the changes of every tensor.
            hero: its parameters should change, too.
            entry: what HERO makes of clips or words: the last that a backward gets to.
            losses: what HERO's losses are made of, which a backward should have passed; none where they weigh nothing.
        """
        if self.over:
            return
        before = self.versions
        self.versions = [sum(p._version for p in part.parameters() if p.requires_grad) for part in (base, hero)]
        moved = [now > then for now, then in zip(self.versions, before, strict=False)]
        self.steps += moved == [True, False]
        frozen = not any(p.requires_grad for p in base.parameters())
        if frozen and not before and type(entry) is Tensor and not entry.is_meta:
            self.start = _total(hero)
        said = ""
        if not self.read:  # without its losses, HERO may have no gradient and so nothing to step by
            said = LOSSES_LEFT_OUT if self.backwards >= 2 else ""
        elif frozen and self.backwards >= PATIENCE and moved[1:] == [False] and _total(hero) == self.start:
            said = NOTHING_LEARNS  # an optimizer that writes past torch's count, by p.data, has changed values
        elif self.steps >= 2:
            said = PARAMETERS_LEFT_OUT
        if said:
            warnings.warn(said, stacklevel=2)
        self.over = bool(said) or (self.read and moved[1:] == [True])
        reached = [] if losses else [True]
        for each in losses:
            each.register_hook(lambda gradient: reached.append(True))
            each.reached = reached  # type: ignore[attr-defined]  # not in a closure, which would hold the graph

        def entered(gradient: Tensor) -> None:
            self.read, self.backwards = self.read or bool(reached), self.backwards + 1

        entry.register_hook(entered)


def _total(module: nn.Module) -> float:
    """Return the sum of a module's parameters: another one where any was changed."""
    return float(sum(parameter.detach().float().abs().sum() for parameter in module.parameters()))


@dataclass(eq=False)
class LastForward:
    """Tensors that a forward leaves for the losses that follow it; they belong to the graph of that forward."""

    relevance: Tensor | None = None
    """(B, T) relevance logits, combined over levels; None before any forward, or with HERO off."""
    masked_relevance: Tensor | None = None
    """(B, T) the same from the masked words; None outside training, or without CMTR."""
    video_mask: Tensor | None = None
    """(B, T), 1/True at real clips."""
    query: Tensor | None = None
    """(B, D) what the levels' weights depend on; None where they are the same for all."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the (B, T) tensors that are there, by name."""
        found = {name: getattr(self, name) for name in ("relevance", "masked_relevance", "video_mask")}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


def relevance_loss(logits: Tensor, labels: Tensor, video_mask: Tensor) -> Tensor:
    """Return ``L_RS``, the mean binary cross-entropy of the clips' relevance over all real clips; 0 without any.

    Args:
        logits: (B, T) relevance logits.
        labels: (B, T), 1 for clips inside the moment; below 0 for those of which nothing is known.
        video_mask: (B, T), 1/True at real clips.
    """
    _expect_same(logits, labels=labels, video_mask=video_mask)
    real = video_mask.bool()
    if labels.is_cpu:  # elsewhere a failed check would end the process; and nothing here reads a value
        torch._assert_async(((labels <= 1) | ~real).all(), "labels are 1 inside, 0 outside: these are larger, or NaN")
    real = real & (labels >= 0)
    logits = at_least_float32(logits).masked_fill(~real, 0.0)
    return _mean(F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none"), real)


def consistency_loss(
    logits: Tensor, masked_logits: Tensor, video_mask: Tensor, kind: str = "clips", gradient: str = "both"
) -> Tensor:
    """Return ``L_CL = D_KL(RS || RS^m)``: masking words must not change which clips are relevant.

    Never negative but for rounding; 0 when no clip is real.

    Args:
        logits: (B, T) relevance logits from the whole query.
        masked_logits: (B, T) relevance logits from the masked query.
        video_mask: (B, T), 1/True at real clips.
        kind: ``"clips"`` compares two distributions over the real clips (softmax), averaged over the batch;
            ``"bernoulli"`` compares each clip's probability (sigmoid), averaged over all real clips.
        gradient: ``"both"``: it flows into both logits; ``"masked"``: into the masked ones alone.
    """
    _expect_same(logits, masked_logits=masked_logits, video_mask=video_mask)
    for name, choice, field in (("kind", kind, "consistency"), ("gradient", gradient, "consistency_gradient")):
        if choice not in CHOICES[field]:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, CHOICES[field]))}, got {choice!r}")
    real = video_mask.bool()
    logits = logits.detach() if gradient == "masked" else logits
    if kind == "clips":
        before, after = _log_softmax(logits, real), _log_softmax(masked_logits, real)
        divergence = (before.exp() * (before - after)).masked_fill(~real, 0.0).sum(-1)
        return _mean(divergence, real.any(-1))
    before, after = (at_least_float32(each).masked_fill(~real, 0.0) for each in (logits, masked_logits))
    inside = before.sigmoid() * (F.logsigmoid(before) - F.logsigmoid(after))
    outside = (-before).sigmoid() * (F.logsigmoid(-before) - F.logsigmoid(-after))
    return _mean(inside + outside, real)


def hero_losses(
    relevance: Tensor,
    masked_relevance: Tensor | None,
    labels: Tensor,
    video_mask: Tensor,
    consistency: str = "clips",
    consistency_gradient: str = "both",
) -> dict[str, Tensor]:
    """Return ``L_RS = (BCE(RS) + BCE(RS^m)) / 2`` and ``L_CL``, not weighted.

    Without masked relevance (evaluation, no CMTR) only BCE(RS) remains, as ``loss_relevance``, and no
    ``loss_consistency``. The arguments are those of ``relevance_loss`` and ``consistency_loss``.
    """
    loss = relevance_loss(relevance, labels, video_mask)
    if masked_relevance is None:
        return {"loss_relevance": loss}
    masked_loss = relevance_loss(masked_relevance, labels, video_mask)
    divergence = consistency_loss(relevance, masked_relevance, video_mask, consistency, consistency_gradient)
    return {"loss_relevance": 0.5 * (loss + masked_loss), "loss_consistency": divergence}


def loss_settings(config: HeroConfig) -> str:
    """Return what the losses need of a config, for a criterion that was not given it: see ``HeroCriterion``.

    As text, and so a key of the outputs: parallel replicas gather keys and tensors, and nothing else.
    """
    return json.dumps({name: getattr(config, name) for name in LOSS_FIELDS})


def wrap_criterion(criterion: nn.Module, config: HeroConfig | None = None) -> HeroCriterion:
    """Add ``loss_relevance`` and ``loss_consistency`` to a DETR criterion and to its ``weight_dict``.

    The usual line ``sum(loss_dict[k] * weight_dict[k] for k in loss_dict if k in weight_dict)`` then trains HERO.

    Args:
        criterion: a ``SetCriterion``: ``criterion(outputs, targets) -> dict`` with a ``weight_dict``, whose targets
            carry ``span_labels``, a list of ``{"spans": (moments, 2)}``: normalized (center, width), or the first and
            the last clip where the criterion's ``span_loss_type`` is ``"ce"``. Without them, or where the criterion
            ignores them (``use_matcher=False``, highlights alone), nothing says which clips are relevant: only
            ``loss_consistency``, which needs no labels, is added. FlashVTG's takes the batch before the outputs, and
            leaves its losses in them; so are HERO's then.
        config: where the weights and the kind of consistency come from; None is that of the plug-in whose outputs
            come, also after ``set_active``.

    Example:
        >>> model = wrap_model(model)
        >>> criterion = wrap_criterion(criterion, model.config)
    """
    if isinstance(criterion, HeroCriterion):
        raise TypeError("this criterion already has HERO's losses: wrap the one inside, criterion.criterion")
    if config is not None and not isinstance(config, HeroConfig):
        raise TypeError(f"config must be a HeroConfig, as model.config is, got {type(config).__name__}")
    if not isinstance(getattr(criterion, "weight_dict", None), dict):
        raise TypeError(
            f"{type(criterion).__name__} has no dict weight_dict: wrap_criterion serves DETR criteria. A model "
            "that computes its own losses needs none: EMB's compute_loss adds HERO's, and for any other add "
            "model.weighted_hero_loss(inside) to its loss"
        )
    return HeroCriterion(criterion, config)


class HeroCriterion(nn.Module):
    """A DETR criterion with HERO's losses; attributes that are not here come from the criterion."""

    _taken = ""  # of the class: a criterion that was pickled by an earlier version has none
    _looked = _said = False

    def __init__(self, criterion: nn.Module, config: HeroConfig | None = None) -> None:
        super().__init__()
        self.criterion = criterion
        self.config, self._of_model = config or HeroConfig(), config is None
        self.weight_dict: dict[str, float] = criterion.weight_dict  # type: ignore[assignment]
        self._put_weights()

    def _put_weights(self) -> None:
        """Put the config's weights into ``weight_dict``, but for what somebody changed there since."""
        put = self.__dict__.setdefault("_put", {})
        for name, value in self.config.loss_weights.items():
            if name not in put or self.weight_dict.get(name) == put[name]:
                self.weight_dict[name] = put[name] = value

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the criterion's losses, and HERO's where the outputs come from a wrapped model in training."""
        given = [*args, *kwargs.values()]
        place = next((at for at, each in enumerate(given) if isinstance(each, dict) and "hero" in each), None)
        if place is None:
            return dict(self.criterion(*args, **kwargs))
        outputs = given[place]
        hero = outputs["hero"]
        bare = without_hero(outputs)  # a criterion that walks over its outputs must meet the base's alone
        try:
            losses = self.criterion(
                *(bare if each is outputs else each for each in args),
                **{name: bare if each is outputs else each for name, each in kwargs.items()},
            )
        finally:
            outputs["hero"] = hero
        if self._of_model and "settings" in hero:  # a loop of somebody's own may leave it out
            self._take_settings(next(iter(hero["settings"])))
        others = [*given[place + 1 :], *given[:place]]
        ours = self._losses(hero, kwargs["targets"] if "targets" in kwargs else others[0])
        if losses is outputs:
            outputs.update(ours)
        return {**losses, **ours}

    def _take_settings(self, settings: str) -> None:
        """Take what the losses need from the plug-in whose outputs these are."""
        if settings != self._taken:
            self._taken, fields = settings, json.loads(settings)
            cmtr = fields["relevance_weight"] + fields["consistency_weight"] > 0
            self.config = replace(self.config, cmtr=cmtr, **fields)
            self._put_weights()

    def _losses(self, hero: dict[str, Tensor], targets: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``loss_relevance`` where moments are known, ``loss_consistency`` where masked words were used."""
        relevance, masked, video_mask = hero["relevance"], hero.get("masked_relevance"), hero["video_mask"]
        if "span_labels" in targets and getattr(self.criterion, "use_matcher", True):
            spans = [target["spans"] for target in targets["span_labels"]]
            kind = getattr(self.criterion, "span_loss_type", "l1")
            if not (self._looked or video_mask.is_cpu or video_mask.is_meta or is_compiling()):
                clip_labels([each.cpu() for each in spans], video_mask.cpu(), kind)  # checks their values, this once
            self._looked = True
            labels = clip_labels(spans, video_mask, kind)
            return hero_losses(relevance, masked, labels, video_mask, *self.config.divergence)
        if getattr(self.criterion, "use_matcher", True) and not (self._said or is_compiling()):
            self._said = True
            got = "have none" if isinstance(targets, dict) else f"are a {type(targets).__name__}"
            warnings.warn(
                "without span_labels nothing says which clips are relevant, and loss_relevance is left out: these "
                f'targets {got}. HERO reads {{"span_labels": [{{"spans": (moments, 2)}}, ...]}}, one for each query',
                stacklevel=5,  # of the line that calls the criterion
            )
        if masked is None:
            getattr(relevance, "reached", []).append(True)  # taken, though no loss comes of it
            return {}
        return {"loss_consistency": consistency_loss(relevance, masked, video_mask, *self.config.divergence)}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules") or {}
            if "criterion" not in modules:
                raise
            return getattr(modules["criterion"], name)


def without_hero(outputs: Any) -> Any:
    """Take HERO's entry out of a dict of outputs, also in a tuple; of a ``ModelOutput``, out of a copy."""
    if isinstance(outputs, tuple):
        parts = map(without_hero, outputs)
        return type(outputs)(*parts) if hasattr(outputs, "_fields") else tuple(parts)
    if type(outputs) is not dict and isinstance(outputs, dict):
        return like_mapping(outputs, {name: each for name, each in outputs.items() if name != "hero"})
    if isinstance(outputs, dict):
        outputs.pop("hero", None)
    return outputs


BORDER = 1e-3
"""How near, in clips, counts as touching: far above float32's rounding, far below what an annotation means."""


def clip_labels(spans: list[Tensor], video_mask: Tensor, span_loss_type: str = "l1") -> Tensor:
    """Label the clips that lie inside a moment; several moments are a union.

    Args:
        spans: for each query (moments, 2), in the unit that a DETR of this ``span_loss_type`` is trained with.
        video_mask: (B, T), 1/True at real clips.
        span_loss_type: ``"l1"``: center and width in [0, 1] of the video's real length;
            ``"ce"``: whole numbers, the first and the last clip, both inside.

    Returns:
        (B, T) float: 1 inside, 0 outside, -1 unknown.

        * ``"l1"``: inside is a clip whose middle lies in a moment, ends included, and the clip that holds the middle of
          a shorter moment. A moment of no width, as padding is, has no clip. Where a query has no other (data sets of
          highlights alone say [0, 0]), all its clips are unknown. A query without any, (0, 2), is answered nowhere in
          its video: all its clips are outside.
        * ``"ce"``: inside is every clip from the first to the last. Where the last is before the first, as upstream's
          data sets have it for a moment that ends in the clip it starts in, the first alone.
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
    place = (real.cumsum(-1) - 1).unsqueeze(1)  # among the real clips: padding may be on the left
    if span_loss_type == "ce":
        first, last = padded[..., :1], padded.amax(-1, keepdim=True)
        inside, unknown = (place >= first) & (place <= last), real.new_zeros(len(real), 1)
    else:
        if padded.is_cpu:
            torch._assert_async(
                (padded <= 2).all(),
                "spans must be (center, width) in [0, 1] of the video: these are larger, as seconds are",
            )
        clips = real.sum(-1).clamp(min=1).view(-1, 1, 1)
        width = padded[..., 1:]
        # A video may be longer than its clips: a moment is cut at the last, and one beyond it is in the last.
        start, end = ((padded[..., :1] + side * width / 2).clamp(0, 1) * clips for side in (-1, 1))
        center = (start + end) / 2
        holds = (center + BORDER).floor().clamp(max=clips - 1) == place
        inside = (((place + 0.5 - center).abs() <= (end - start) / 2 + BORDER) | holds) & (width > 0)
        unknown = (width == 0).any(1) & ~(width > 0).any(1)
    return (inside.any(1) & real).float().masked_fill(unknown, -1.0)


def _log_softmax(logits: Tensor, real: Tensor) -> Tensor:
    # A finite fill keeps a video without real clips finite; those rows are dropped from the mean.
    return at_least_float32(logits).masked_fill(~real, -1e9).log_softmax(-1)


def _mean(values: Tensor, real: Tensor) -> Tensor:
    return values.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


def _expect_same(logits: Tensor, **others: Tensor) -> None:
    expect_shape("logits", logits, "B T", (None, None))
    for name, other in others.items():
        expect_shape(name, other, "B T", tuple(logits.shape))
