"""HERO's configuration: every choice in one place."""

from __future__ import annotations

import difflib
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor

from hero_plugin.protocol import Grounder

LOSS_FIELDS = ("relevance_weight", "consistency_weight", "consistency", "consistency_gradient")
"""What the losses need to know."""
LIVE_FIELDS = (*LOSS_FIELDS, "inference", "checkpoint")
"""What may change once the plug-in is made: its modules were made by the rest."""


@dataclass(frozen=True)
class HeroConfig:
    """What to add to a base, and how. Frozen: derive a variant with ``dataclasses.replace``.

    The paper's hyper-parameters are the defaults. Some defaults depart from its *formula* (``norm``,
    ``identity_start``, ``positions``, ``gate``, ``normalize``, ``calibrate``): ``paper`` has the literal reading, and
    ``docs/concepts/hero.md`` says what was measured.
    Each row of the paper's ablation table is one field: HEM is ``levels`` (1 removes it, 2/4/8 vary it),
    SGVF is ``sgvf``, CMTR is ``cmtr``.
    """

    levels: int = 4
    """N, how many levels of meaning the text encoder is tapped at; 1 means no encoder."""
    sgvf: bool = True
    """Filter the clips by each level's words (SGVF); without it every level sees the same clips."""
    cmtr: bool = True
    """Train with masked words as well (CMTR)."""

    levels_from: Literal["encoder", "input"] = "encoder"
    """Where the levels of the query come from: HERO's own text encoder, or the model's words, (B, L, N, D) in place of
    (B, L, D), which are layers of a pretrained text encoder, lexical to conceptual (not in the paper)."""

    stride: int = 2
    """Encoder layers between two taps (paper: 6 layers for 4 levels)."""
    num_heads: int = 8
    """Attention heads of the text encoder; divides the base's hidden size."""
    feedforward: int | None = None
    """Hidden size of the encoder's feed-forward part; None is 4 times the base's hidden size."""
    dropout: float = 0.1
    """Dropout in the text encoder."""
    norm: Literal["pre", "post"] = "pre"
    """Where the encoder normalises: before each sublayer, or after it (the paper's vanilla encoder)."""
    identity_start: bool = True
    """Start the encoder as the identity (every residual branch at zero), so that all levels start at Q."""
    positions: bool = True
    """Tell the encoder's attention where a word stands; off, its levels see a bag of words."""

    projections: bool = False
    """Learned per-level query, key and value projections in SGVF (as printed, it has none)."""
    gate: Literal["residual", "sigmoid"] = "residual"
    """``sigmoid``: V * sigmoid(c), as printed. ``residual``: V * (1 + a*tanh(c/2)), a learned from 0."""

    mask_ratio: float = 0.3
    """Probability of masking a word."""
    perturb: Literal["mask", "noise"] = "mask"
    """What CMTR does to the words it draws: mask them, or move them by noise in their D dimensions."""
    noise_size: float = 0.9
    """Length of that noise as a share of the word's. 0.9 is how far a word of like meaning is from it: the median over
    244 one-word rewordings of Charades-CD's val set, where a trained EMB projects their vectors, is 0.88."""

    relevance: Literal["base", "pair"] = "base"
    """Clip relevance from the base's own clip score, or from a light head on the pair {Q_i, V_i}."""
    calibrate: bool = True
    """With relevance "base", where that score only ranks clips (a DETR's saliency): centre it on its video, with a
    learned scale and offset. Off, the score is the logit as it is."""
    consistency: Literal["clips", "bernoulli"] = "clips"
    """KL between distributions over the clips, or between per-clip probabilities."""
    consistency_gradient: Literal["both", "masked"] = "both"
    """Whether the KL pulls at both relevances, as printed, or at that of the masked words towards the other alone."""
    relevance_weight: float = 0.1
    """Lambda 1, the weight of the relevance loss."""
    consistency_weight: float = 0.1
    """Lambda 2, the weight of the consistency loss."""

    normalize: bool = True
    """Softmax over the aggregation weights; off, the formula as printed (any real weights)."""
    aggregation_dim: int = 128
    """Size of the learned vectors T_i that the aggregation weights are computed from."""
    level_weights: Literal["learned", "query"] = "learned"
    """Whether the aggregation weights are the same for every query, as printed, or MLP(T_i, the mean of its words)."""

    inference: tuple[int, ...] | None = None
    """The levels that answer outside training, from 0, their weights renormalised; None is all. One level costs one
    pass of the base: see ``HeroModel.keep_level``."""

    checkpoint: bool = False
    """Recompute the base's passes in the backward, level by level, instead of keeping their activations. Exact, but in
    bases whose negatives are the batch's next sample (QD-DETR, CG-DETR, ...): a level's last sample takes its own
    level's first, where all levels in one batch take the next level's."""

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value, kind = field.name, getattr(self, field.name), type(field.default)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if name in CHOICES and value not in CHOICES[name]:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, CHOICES[name]))}, got {value!r}")
            if (kind is int or (name == "feedforward" and value is not None)) and not (whole and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
            if kind is float and not (whole or isinstance(value, float)):
                raise ValueError(f"{name} must be a number, got {value!r}")
            if kind is bool and not isinstance(value, bool):  # sgvf="off" is true in Python, and would leave SGVF on
                raise ValueError(f"{name} must be True or False, got {value!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not 0.0 < self.mask_ratio < 1.0:
            raise ValueError(
                f"mask_ratio must be between 0 and 1, got {self.mask_ratio}; to mask nothing, set cmtr=False"
            )
        if not 0.0 < self.noise_size < float("inf"):
            raise ValueError(f"noise_size must be positive, got {self.noise_size}")
        if not (self.relevance_weight >= 0 and self.consistency_weight >= 0):  # NaN is refused, too
            raise ValueError(
                "loss weights must not be negative, got "
                f"relevance_weight={self.relevance_weight}, consistency_weight={self.consistency_weight}"
            )
        if self.inference is not None:
            object.__setattr__(self, "inference", self._answering(self.inference))
        if self.identity_start and self.norm == "post":
            raise ValueError(
                "identity_start needs norm='pre': an encoder that normalises last cannot start as the identity"
            )
        if self.levels_from == "input" and self.levels < 2:
            raise ValueError("levels_from='input' needs two levels or more; with one, the words are (B, L, D) as ever")
        if self.cmtr and self.relevance_weight == 0 and self.consistency_weight == 0:
            raise ValueError("cmtr=True trains through the two losses, but both weights are 0; set cmtr=False")

    def _answering(self, levels: Any) -> tuple[int, ...]:
        named = levels if isinstance(levels, Collection) else ()  # inference=1 is one level, not levels
        whole = [isinstance(level, int) and not isinstance(level, bool) for level in named]
        if not whole or not all(whole) or not set(levels) <= set(range(self.levels)) or len(set(levels)) < len(levels):
            raise ValueError(
                f"the levels that answer (inference) are of 0 to {self.levels - 1}, each once, as in (1,), or None for "
                f"all of them; got {levels!r}"
            )
        if 1 < len(levels) < self.levels and not self.normalize:
            raise ValueError("inference of some levels needs normalize=True: else their weights add up to anything")
        return tuple(sorted(levels))

    @property
    def active(self) -> bool:
        """Whether anything is added to the base at all."""
        return self.levels > 1 or self.sgvf or self.cmtr

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each HERO loss by its name."""
        return {"loss_relevance": self.relevance_weight, "loss_consistency": self.consistency_weight}

    @property
    def divergence(self) -> tuple[str, str]:
        """Which divergence the consistency loss is, and where its gradient flows."""
        return self.consistency, self.consistency_gradient

    @property
    def departures(self) -> tuple[str, ...]:
        """Why a model wrapped with this config does not start with its base's predictions; empty where it does."""
        reasons = []
        if self.levels_from == "input":
            reasons.append("levels_from='input': the base alone reads no levels")
        elif self.levels > 1 and not self.identity_start:
            reasons.append(
                "identity_start=False: the text encoder is no identity at the start"
                + (" (and with norm='post' cannot be)" if self.norm == "post" else "")
            )
        if self.levels > 1 and not self.normalize:
            reasons.append("normalize=False: the weights of the levels do not add up to 1")
        if self.sgvf and self.gate == "sigmoid":
            reasons.append("gate='sigmoid': the filter starts by scaling every clip by about a half")
        return tuple(reasons)

    @property
    def starts_as_base(self) -> bool:
        """Whether a freshly wrapped model predicts what its base does, up to rounding; ``departures`` says why not.

        A base that reads padded words has to say so for that: ``Pair.reads_padding``.
        """
        return not self.departures

    def architecture(self, dim: int, ranks: bool = False) -> dict[str, Any]:
        """Return the fields that decide what the plug-in computes from its weights, on a base of hidden size ``dim``.

        Not among them: what only training reads (``dropout``, ``mask_ratio``, ``noise_size``, losses and their weights,
        ``checkpoint``, ``identity_start``), which levels answer (``inference``), and choices of a part that is not
        there: ``calibrate`` has one only where the base's clip score ``ranks`` clips and is no logit, as the DETRs'.
        """
        names = ["levels", "sgvf", "cmtr", "relevance"] if self.active else []
        if self.levels > 1:
            encoder = ["stride", "num_heads", "feedforward", "norm", "positions"]
            names += ["levels_from", *(encoder if self.levels_from == "encoder" else [])]
            names += ["normalize", "aggregation_dim", "level_weights"]
        if self.sgvf:
            names += ["projections", "gate"]
        if self.cmtr:
            names.append("perturb")  # a mask is learned, noise is not
        if self.active and ranks and self.relevance == "base":
            names.append("calibrate")
        decided = {name: getattr(self, name) for name in names}
        if "feedforward" in decided:
            decided["feedforward"] = self.feedforward or 4 * dim
        return decided

    def expect_fit(self, grounder: Grounder) -> None:
        """Raise ``ValueError`` where the base has outputs that these choices cannot combine."""
        parts = getattr(grounder, "part_of_batch", ())
        if self.level_weights == "query" and parts:
            raise ValueError(
                f"level_weights='query' weighs each sample by itself, and {', '.join(parts)} of this base has rows "
                "for some samples only: use level_weights='learned'"
            )

    def differences(self, other: HeroConfig, grounder: Grounder) -> dict[str, tuple[Any, Any]]:
        """Return by which fields, and from what to what, the same weights would mean something else under ``other``.

        ``"absent"`` stands for the choice of a part that is not there. Empty where only training tells the two apart.
        """
        ranks = getattr(grounder, "relevance_ranks", False)
        here, there = (config.architecture(grounder.dim, ranks) for config in (self, other))
        pairs = {name: (here.get(name, "absent"), there.get(name, "absent")) for name in {**here, **there}}
        return {name: (ours, theirs) for name, (ours, theirs) in pairs.items() if ours != theirs}

    def contradiction(self, there: HeroConfig, grounder: Grounder) -> str:
        """Return the error for weights that were made under the config ``there``; empty where the two go together."""
        changed = self.differences(there, grounder)
        if not changed:
            return ""
        choices = [f"{name}={getattr(there, name)!r}" for name, (_, value) in changed.items() if value != "absent"]
        if not there.active:  # no part is there to choose anything of
            choices = ["config=HeroConfig.off()"]
        return (
            "these weights come from another HERO than this model's: wrap the base with "
            f"wrap_model(base, {', '.join(choices)}), or let hero_plugin.config_of(state_dict) say with what"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return every field, as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> HeroConfig:
        """Make a config of what ``to_dict`` returned, here or in an earlier version: a missing field has its default.

        Raises:
            ValueError: a field that this version does not know, or an impossible value.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in plain if name not in known]
        if unknown:
            raise ValueError(
                f"HeroConfig has no {', '.join(map(repr, unknown))} here; a later version may: "
                "pip install --upgrade hero-plugin"
            )
        return cls(**plain)

    @classmethod
    def paper(cls, **changes: Any) -> HeroConfig:
        """Return the formulas as printed: post-norm, no positions, V * sigmoid(.), level weights without a softmax.

        Nor is a clip score calibrated that only ranks.
        """
        literal = cls(
            norm="post", identity_start=False, positions=False, gate="sigmoid", normalize=False, calibrate=False
        )
        return replace(literal, **changes)

    @classmethod
    def off(cls) -> HeroConfig:
        """Return the config that adds nothing: the wrapped model is the base, bit for bit."""
        return cls(levels=1, sgvf=False, cmtr=False)


CHOICES = {name: get_args(kind) for name, kind in get_type_hints(HeroConfig).items() if get_origin(kind) is Literal}
"""The values of each field that has a few."""


def chosen_config(config: HeroConfig, choices: Mapping[str, Any]) -> HeroConfig:
    """Return the config with these fields changed; ``TypeError``, which names one that is close, on any other field."""
    names = [field.name for field in fields(HeroConfig)]
    for name in choices:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f". Choices: {', '.join(names)}"
            raise TypeError(f"HeroConfig has no choice {name!r}{hint}")
    return replace(config, **choices)


NOTE = "hero"
"""Key of the config in a ``state_dict``'s metadata, where torch notes the versions of modules.

The note is part of the ``state_dict`` itself, not one of its entries: any training loop that saves a wrapped model's
weights saves it, and it loads with ``weights_only=True``. A copy made entry by entry has lost it.
"""


def with_config_note(weights: Mapping[str, Tensor], config: HeroConfig) -> dict[str, Tensor]:
    """Return a ``state_dict`` of these weights, of a wrapped model or a plug-in, that says its config."""
    state_dict: Any = OrderedDict(weights)
    state_dict._metadata = OrderedDict({"": {NOTE: config.to_dict()}})
    return state_dict


def config_of(state_dict: Any) -> HeroConfig | None:
    """Return the ``HeroConfig`` of the model that ``state_dict`` came from; None where it does not say.

    Raises:
        ValueError: the note has a field that this version does not know.
    """
    metadata = getattr(state_dict, "_metadata", None) or {}
    found = next((each[NOTE] for each in metadata.values() if isinstance(each, Mapping) and NOTE in each), None)
    return None if found is None else HeroConfig.from_dict(found)


def without_wrappers(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a wrapped model's weights by its own names, without what torch's wrappers put before them."""
    wrappers = re.compile(r"(?:(?:module|_orig_mod)\.)+(?=(?:hero|base)\.|$)")
    if not any(wrappers.match(name) for name in state_dict):
        return state_dict
    own = ((wrappers.sub("", name, count=1), value) for name, value in state_dict.items())
    bare: Any = OrderedDict((name, value) for name, value in own if name != "n_averaged")  # of an AveragedModel
    metadata = getattr(state_dict, "_metadata", {})
    bare._metadata = OrderedDict((wrappers.sub("", f"{name}.")[:-1], value) for name, value in metadata.items())
    return bare
