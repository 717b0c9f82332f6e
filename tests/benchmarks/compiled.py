"""A training step of EMB under ``torch.compile`` on a CPU, over the step as it is: plain, and with HERO.

``python -m tests.benchmarks.compiled`` prints the processor time of dropout alone, ours and PyTorch's, and of a
compiled step over the step as it is: medians and quartiles in turns, on one thread; and what batched matrix products
take of either. Compiling takes minutes.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial

os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # before torch is imported

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from hero_plugin.adapters.cpu_ops import drop
from hero_plugin.config import HeroConfig
from hero_plugin.integrations.tools.bench.measure import Quartiles, time_in_turns
from hero_plugin.integrations.tools.bench.models import Setting, Variant, sizes_of, workloads_of
from hero_plugin.integrations.training.distributed import keep_freed_memory

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory(CPU)
    x = torch.randn(16, 8, 32, 32, requires_grad=True)
    drops = {"ours": drop, "PyTorch's": F.dropout}
    drops |= {f"{name}, compiled": torch.compile(function) for name, function in drops.items()}
    steps = [partial(function, x, 0.2) for function in drops.values()]
    for name, seconds in zip(drops, time_in_turns(steps, 50, 250, CPU, "processor"), strict=True):
        print(f"dropout of {x.numel():,} numbers, {name}: {1e3 * Quartiles.of(seconds).median:.2f} ms", flush=True)

    sizes = sizes_of("emb", clips=32, words=8, dim=64)
    for model in (Variant("plain"), Variant("hero", 4)):
        setting = Setting("emb", "train", "cpu")
        one, other = (workloads_of(setting, [model], sizes, 0, HeroConfig(), None)[model] for _ in range(2))
        steps = [one.step(), other.step(torch.compile(other.task.model))]
        began = time.perf_counter()
        steps[1]()
        compiling = time.perf_counter() - began
        eager, compiled = time_in_turns(steps, 2, given.turns, CPU, "processor")
        low, median, high = Quartiles.of_ratio(compiled, eager)
        print(f"{sizes}  {model}: {median:.2f} ({low:.2f} to {high:.2f}, {given.turns} turns)", flush=True)
        products = ", ".join(f"{1e3 * seconds_of_products(step):.0f} ms" for step in steps)
        print(f"  aten::bmm as it is and compiled: {products}; compiled in {compiling:.0f} s", flush=True)


def seconds_of_products(step: object, steps: int = 3) -> float:
    """Return what batched matrix products take of a step."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(steps):
            step()  # type: ignore[operator]
    return sum(each.self_cpu_time_total for each in profiled.key_averages() if each.key == "aten::bmm") / 1e6 / steps


if __name__ == "__main__":
    main()
