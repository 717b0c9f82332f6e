"""``hero-plugin train emb``: EMB, plain or with HERO."""

import sys

from hero_plugin.integrations import cli
from hero_plugin.integrations.training.emb import EmbTrainConfig
from hero_plugin.integrations.training.train import main, train

__all__ = ["EmbTrainConfig", "main", "train"]

if __name__ == "__main__":
    sys.exit(cli.main(["train", "emb", *sys.argv[1:]]))
