"""A training step with the fused Adam of torch's CPU kernels, over the step with the loop over parameters.

``python -m tests.benchmarks.fused_adam`` prints, for EMB and QD-DETR, plain and with HERO, at the paper's sizes and at
the small ones of the results pages, the ratio of processor times: median and quartiles in turns, on one thread.
"""

from __future__ import annotations

import argparse
import itertools

import torch

from hero_plugin.config import HeroConfig
from hero_plugin.integrations.tools.bench.measure import Quartiles, time_in_turns
from hero_plugin.integrations.tools.bench.models import Setting, Variant, sizes_of, workloads_of
from hero_plugin.integrations.training.distributed import keep_freed_memory

CPU = torch.device("cpu")
SMALL = {"clips": 32, "words": 8, "dim": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory(CPU)
    variants = (Variant("plain"), Variant("hero", 4))
    for base, small, model in itertools.product(("emb", "qd_detr"), ({}, SMALL), variants):
        sizes = sizes_of(base, **small)
        fused, loop = (
            workloads_of(Setting(base, "train", "cpu"), [model], sizes, 0, HeroConfig(), None)[model] for _ in range(2)
        )
        for group in loop.optimizer.param_groups:
            group.update(fused=False, foreach=False)
        times = time_in_turns([fused.step(), loop.step()], 2, given.turns, CPU, "processor")
        low, median, high = Quartiles.of_ratio(*times)
        print(f"{sizes}  {model}: {median:.2f} ({low:.2f} to {high:.2f}, {given.turns} turns)", flush=True)


if __name__ == "__main__":
    main()
