"""``hero-plugin train qd_detr``: QD-DETR, plain or with HERO."""

import sys

from hero_plugin.integrations import cli
from hero_plugin.integrations.training.detr import QDDETRTrainConfig
from hero_plugin.integrations.training.train import main, train

__all__ = ["QDDETRTrainConfig", "main", "train"]

if __name__ == "__main__":
    sys.exit(cli.main(["train", "qd_detr", *sys.argv[1:]]))
