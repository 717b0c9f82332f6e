"""``hero-plugin train moment_detr``: Moment-DETR, plain or with HERO."""

import sys

from hero_plugin.integrations import cli
from hero_plugin.integrations.training.detr import MomentDETRTrainConfig
from hero_plugin.integrations.training.train import main, train

__all__ = ["MomentDETRTrainConfig", "main", "train"]

if __name__ == "__main__":
    sys.exit(cli.main(["train", "moment_detr", *sys.argv[1:]]))
