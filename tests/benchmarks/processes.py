"""How far two processes' step is from one's: ``python -m tests.benchmarks.processes``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from hero_plugin.integrations.support.process import Rank
from hero_plugin.integrations.training.distributed import ALONE, joined
from tests.training.processes import (
    CPU,
    EXACT,
    SIZES,
    cases,
    every_gradient,
    largest_difference,
    of_losses,
    of_parameters,
    start,
)


def work(rank: Rank, folder: Path, chosen: dict[str, dict[str, object]]) -> None:
    with joined(rank, CPU) as group:
        torch.save(every_gradient(chosen, folder, group), folder / f"gradients{rank.index}.pt")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = cases(folder)
        running = start(work, folder, chosen)
        alone = every_gradient(chosen, folder, ALONE)
        while not running.join():
            pass
        share = torch.load(folder / "gradients0.pt", weights_only=True)
    print("| | batch | largest gradient | largest difference of a gradient | of a loss |")
    print("|---|---:|---:|---:|---:|")
    for case in sorted(chosen, key=lambda case: case not in EXACT):
        for place, size in enumerate(SIZES):
            whole, two = alone[case][place], share[case][place]
            largest = max(float(each.abs().max()) for each in of_parameters(whole).values())
            apart = [largest_difference(part(whole), part(two)) for part in (of_parameters, of_losses)]
            print(f"| {case} | {size} | {largest:.1e} | {apart[0]:.1e} | {apart[1]:.1e} |")


if __name__ == "__main__":
    main()
