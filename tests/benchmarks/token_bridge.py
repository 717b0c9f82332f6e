"""What ``eval --bridge`` gives a run on tokens, by how many it remembers and what share of training's may be unknown.

``python -m tests.benchmarks.token_bridge RUN ANNOTATIONS QUERY_FEATURES`` prints R1@0.5 and mIoU for each, and the
processor time that the bridge takes per query of twelve tokens. Choose on val and its rewordings.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from hero_plugin import Bridge
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.training.load_run import learned_before
from hero_plugin.integrations.training.queries import training_tokens
from hero_plugin.integrations.training.run_folder import RunFolder
from tests.screen import QUIET

CHOICES = [(4096, 0.01), (4096, 0.03), (4096, 0.1), (1024, 0.03), (8192, 0.03)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("run", "annotations", "query_features"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    flags = {"run": (given.run,), "annotations": (f"set={given.annotations}",), "device": "cpu", "resamples": 0}
    config = EvalConfig(**flags, query_features=given.query_features)
    show("no bridge", evaluate(config, QUIET))
    of_tokens = Bridge.of_tokens
    for size, share in CHOICES:
        with mock.patch.object(Bridge, "of_tokens", partial(of_tokens, size=size, share=share)):
            config.bridge = True
            show(f"{size:,} tokens, {100 * share:g} % unknown", evaluate(config, QUIET))
    run = RunFolder(given.run)
    tokens = training_tokens(run.settings(), learned_before(run))
    bridge, queries = of_tokens(tokens), tokens[torch.arange(1200) % len(tokens)]
    bridge(queries)
    began = time.process_time()
    bridge(queries)
    print(f"{10 * (time.process_time() - began):.2f} ms per query of 12 tokens of {tokens.shape[1]} numbers")


def show(name: str, found: dict) -> None:
    """Print the scores of the one set."""
    print(f"{name}: R1@0.5 {found['set']['R1@0.5']:.1f}, mIoU {found['set']['mIoU']:.1f}", flush=True)


if __name__ == "__main__":
    main()
