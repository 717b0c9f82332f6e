"""``hero-plugin train tr_detr``: TR-DETR, plain or with HERO."""

from __future__ import annotations

from hero_plugin.integrations.training.detr import TRDETRTrainConfig
from hero_plugin.integrations.training.train import main, train

__all__ = ["TRDETRTrainConfig", "main", "train"]

if __name__ == "__main__":
    import sys

    from hero_plugin.integrations.cli import main as command

    sys.exit(command(["train", "tr_detr", *sys.argv[1:]]))
