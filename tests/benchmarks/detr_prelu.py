"""The saving by the DETRs' own rectifier in QD-DETR's training step.

``python -m tests.benchmarks.detr_prelu`` prints, for the plain base and for HERO, the processor time of a step over
that with PyTorch's rectifier: median and quartiles of steps in turns, on one thread. ``--paper`` takes the published
sizes, instead of a small setting.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn

from hero_plugin.adapters.cpu_ops import PReLU
from hero_plugin.config import HeroConfig
from hero_plugin.integrations.tools.bench.models import Setting, Variant, sizes_of, workloads_of
from hero_plugin.integrations.training.distributed import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--turns", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    keep_freed_memory(device)
    sizes = sizes_of("qd_detr", **({} if given.paper else {"clips": 32, "words": 10, "dim": 64}))
    models = [Variant("plain", 0), Variant("hero", 4)]
    workloads = workloads_of(Setting("qd_detr", "train", "cpu"), models, sizes, 0, HeroConfig(), None)
    ours = PReLU.forward
    for model, workload in workloads.items():
        step, ratios = workload.step(), []
        for _ in range(3):  # until the heap has settled
            step()
        for _ in range(given.turns):
            seconds = []
            for forward in (ours, nn.PReLU.forward):
                PReLU.forward = forward
                start = time.process_time()
                step()
                seconds.append(time.process_time() - start)
            ratios.append(seconds[0] / seconds[1])
        low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"{sizes}  {model}: {median:.2f} (quartiles {low:.2f} to {high:.2f}, {given.turns} turns)", flush=True)


if __name__ == "__main__":
    main()
