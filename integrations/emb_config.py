"""The flags of ``hero-plugin train emb``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hero_plugin.adapters.emb import EMBConfig
from hero_plugin.integrations.train_config import TrainConfig


@dataclass(frozen=True)
class EmbTrainConfig(TrainConfig):
    """Train EMB, plain or with HERO. Defaults are the paper's recipe."""

    base: ClassVar[str] = "emb"
    title: ClassVar[str] = "EMB"

    dim: int = 128
    """Hidden size D."""
    drop_rate: float = 0.2
    """Dropout in EMB."""
    word_norm: float = 5.5
    """Scale the word vectors to this mean length (GloVe's own, which the recipe is made for); 0: leave them."""
    highlight_lambda: float = 5.0
    """Weight of EMB's highlight loss."""
    rank_lambda: float = 1.0
    """Weight of EMB's proposal ranking loss."""
    extend: float = 0.1
    """Share of its length that a moment grows by, at each end, for EMB's highlight labels."""

    def mistakes(self) -> list[str]:
        """Return what is wrong with the settings, one message each."""
        return ([] if self.words else ["--words is missing"]) + super().mistakes()

    @property
    def positions(self) -> int:
        """Return the number of positions: the most words, and the most clips."""
        return max(128, self.max_clips)

    def emb(self, video_dim: int, word_dim: int) -> EMBConfig:
        """Return EMB's own config, for features and words of these widths."""
        return EMBConfig(
            word_dim=word_dim,
            video_feature_dim=video_dim,
            max_pos_len=self.positions,
            dim=self.dim,
            drop_rate=self.drop_rate,
            highlight_lambda=self.highlight_lambda,
            rank_lambda=self.rank_lambda,
            extend=self.extend,
        )
