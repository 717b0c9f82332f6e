"""Sizes and loss weights of EMB, under the names of its authors' command line."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class EMBHyperparameters:
    """What a training of EMB chooses."""

    dim: int = 128
    """Hidden size D."""
    drop_rate: float = 0.2
    """Dropout in EMB."""
    highlight_lambda: float = 5.0
    """Weight of EMB's highlight loss."""
    rank_lambda: float = 1.0
    """Weight of EMB's proposal ranking loss."""
    extend: float = 0.1
    """Share of its length that a moment grows by, at each end, for EMB's highlight labels."""


@dataclass(frozen=True)
class EMBConfig(EMBHyperparameters):
    """Settings of EMB. Defaults are the published ones.

    ``vars(config)`` has all that upstream's own ``EMB`` reads, so one config builds both.

    Attributes:
        word_size: words in the vocabulary, PAD and UNK included; None takes it from the word vectors.
        char_size: characters in the vocabulary; sizes parameters that EMB holds but never uses.
        max_pos_len: the largest number of clips (and of words) that the position encoding covers.
        num_layers: layers in each attention block, and convolutions in the proposal ranker.
        downscale: clips in one cell of the proposal map.
        windows: how many lengths of proposals each group of the map holds, shortest first.
        kernel_size: of the ranker's convolutions.
        min_iou: overlap up to which a proposal's target score is 0.
        max_iou: overlap from which it is 1.
        threshold: the overlap at which the elastic threshold ends (see ``elastic_threshold``).

    Raises:
        ValueError: a size that no EMB can be built with.
    """

    word_size: int | None = None
    char_size: int = 2
    word_dim: int = 300
    char_dim: int = 50
    video_feature_dim: int = 1024
    max_pos_len: int = 128
    num_heads: int = 8
    num_layers: int = 1
    downscale: int = 8
    windows: Sequence[int] = (16,)
    kernel_size: int = 3
    min_iou: float = 0.3
    max_iou: float = 0.7
    threshold: float = 0.5

    def __post_init__(self) -> None:
        sizes = ("char_size", "word_dim", "char_dim", "video_feature_dim", "max_pos_len", "dim")
        for name in (*sizes, "num_heads", "num_layers", "downscale"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.dim % self.num_heads:
            raise ValueError(f"num_heads must divide dim, got dim={self.dim} and num_heads={self.num_heads}")
        if self.dim % 2:
            raise ValueError(f"dim must be even for the sine and cosine position encoding, got {self.dim}")
        if not 0 <= self.drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {self.drop_rate}")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd so that the map keeps its size, got {self.kernel_size}")
        if not self.windows or any(window < 1 for window in self.windows):
            raise ValueError(f"windows must name at least one length, all positive, got {self.windows}")
        if self.min_iou > self.max_iou:
            raise ValueError(f"min_iou must not exceed max_iou, got {self.min_iou} and {self.max_iou}")

    @classmethod
    def of(cls, configs: Any) -> "EMBConfig":
        """Take the settings from any object with attributes (a parsed command line); others are left out."""
        if isinstance(configs, cls):
            return configs
        given = vars(configs)
        return cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})
