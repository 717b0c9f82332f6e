"""``hero-plugin train tr_detr``: TR-DETR, plain or with HERO."""

import sys

from hero_plugin.integrations import cli
from hero_plugin.integrations.training.detr import TRDETRTrainConfig
from hero_plugin.integrations.training.train import main, train

__all__ = ["TRDETRTrainConfig", "main", "train"]

if __name__ == "__main__":
    sys.exit(cli.main(["train", "tr_detr", *sys.argv[1:]]))
