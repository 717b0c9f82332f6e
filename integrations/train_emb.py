"""``hero-plugin train emb``: EMB, plain or with HERO."""

from __future__ import annotations

from hero_plugin.integrations.training.emb import EmbTrainConfig
from hero_plugin.integrations.training.train import main, train

__all__ = ["EmbTrainConfig", "main", "train"]

if __name__ == "__main__":
    import sys

    from hero_plugin.integrations.cli import main as command

    sys.exit(command(["train", "emb", *sys.argv[1:]]))
