"""``hero-plugin train moment_detr``: Moment-DETR, plain or with HERO."""

from __future__ import annotations

from hero_plugin.integrations.training.detr import MomentDETRTrainConfig
from hero_plugin.integrations.training.train import main, train

__all__ = ["MomentDETRTrainConfig", "main", "train"]

if __name__ == "__main__":
    import sys

    from hero_plugin.integrations.cli import main as command

    sys.exit(command(["train", "moment_detr", *sys.argv[1:]]))
