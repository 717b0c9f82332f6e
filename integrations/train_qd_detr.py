"""``hero-plugin train qd_detr``: QD-DETR, plain or with HERO."""

from __future__ import annotations

from hero_plugin.integrations.training.detr import QDDETRTrainConfig
from hero_plugin.integrations.training.train import main, train

__all__ = ["QDDETRTrainConfig", "main", "train"]

if __name__ == "__main__":
    import sys

    from hero_plugin.integrations.cli import main as command

    sys.exit(command(["train", "qd_detr", *sys.argv[1:]]))
