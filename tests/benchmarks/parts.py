"""Where a training step of HERO spends its time, part by part.

``python -m tests.benchmarks.parts`` prints, for each base at its published sizes, the share of a training step's
processor time that each part of the forward takes, and the backward as a whole: means over the steps, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from hero_plugin.config import HeroConfig
from hero_plugin.integrations.support.tables import markdown_table
from hero_plugin.integrations.tools.bench.models import Setting, Variant, sizes_of, workloads_of
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.distributed import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--bases", nargs="+", default=["emb", "moment_detr", "qd_detr", "tr_detr"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory(torch.device("cpu"))
    rows = []
    for base in given.bases:
        shares = shares_of_a_step(base, given.steps)
        rows.append((BASES[base].config.title, *(f"{100 * share:.0f} %" for share in shares.values())))
    print(markdown_table(("base", *shares), rows))


def shares_of_a_step(base: str, steps: int) -> dict[str, float]:
    """Return the share of a step that each part takes; the rest is losses, matching and the optimizer."""
    variant = Variant("hero", 4)
    work = workloads_of(Setting(base, "train", "cpu"), [variant], sizes_of(base), 0, HeroConfig(), None)[variant]
    model: Any = work.task.model
    spent: Counter[str] = Counter()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            found = function(*args, **kwargs)
            spent[name] += time.process_time() - began
            return found

        return run

    grounder, hero = model.grounder, model.hero
    parts = {
        "projections": (grounder, "embed"),
        "HEM": (hero, "read"),
        "SGVF": (hero, "clips"),
        "the base, four levels": (grounder, "ground"),
        "its scores, masked words": (grounder, "relate"),
        "backward": (torch.Tensor, "backward"),
    }
    step, before = work.step(), torch.Tensor.backward
    step()
    for name, (owner, method) in parts.items():
        setattr(owner, method, timed(name, getattr(owner, method)))
    try:
        began = time.process_time()
        for _ in range(steps):
            step()
        whole = time.process_time() - began
    finally:
        torch.Tensor.backward = before  # type: ignore[method-assign]
    return {**{name: spent[name] / whole for name in parts}, "rest": 1 - spent.total() / whole}


if __name__ == "__main__":
    main()
