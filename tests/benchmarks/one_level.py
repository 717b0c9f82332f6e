"""Inference of one level by which one it is: a higher level runs more of HERO's text encoder than level 1.

``python -m tests.benchmarks.one_level`` prints, for each base at its published sizes, the processor time of inference
with ``--level`` over that with level 1, and of both over the plain base: medians and quartiles in turns, on one thread.
"""

from __future__ import annotations

import argparse

import torch

from hero_plugin.config import HeroConfig
from hero_plugin.integrations.tools.bench.measure import Quartiles, time_in_turns
from hero_plugin.integrations.tools.bench.models import Setting, Variant, sizes_of, workloads_of
from hero_plugin.integrations.training.distributed import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--level", type=int, default=2)
    parser.add_argument("--bases", nargs="+", default=["emb", "moment_detr", "qd_detr", "tr_detr"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    keep_freed_memory(cpu)
    plain, one = Variant("plain"), Variant("one", 4)
    for base in given.bases:
        setting, sizes = Setting(base, "inference", "cpu"), sizes_of(base)
        first = workloads_of(setting, [plain, one], sizes, 0, HeroConfig(), None)
        second = workloads_of(setting, [one], sizes, 0, HeroConfig(), None)[one]
        second.task.model.keep_level(given.level)  # type: ignore[operator]  # the others keep level 1
        steps = [first[plain].step(), first[one].step(), second.step()]
        without, level_1, higher = time_in_turns(steps, 1, given.turns, cpu, "processor")
        ratios = {
            f"level {given.level} over level 1": (higher, level_1),
            "level 1 over the base": (level_1, without),
            f"level {given.level} over the base": (higher, without),
        }
        for name, pair in ratios.items():
            low, median, high = Quartiles.of_ratio(*pair)
            print(f"{base}  {name}: {median:.2f} ({low:.2f} to {high:.2f}, {given.turns} turns)", flush=True)


if __name__ == "__main__":
    main()
