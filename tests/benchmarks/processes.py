"""The distance of two processes' step from one's.

``python -m tests.benchmarks.processes`` prints a Markdown table: the largest difference of a gradient and of a loss,
one row per case and size of the batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from hero_plugin.integrations.support.process import Rank
from hero_plugin.integrations.support.tables import markdown_table
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
    rows = []
    for case in sorted(chosen, key=lambda case: case not in EXACT):
        for size, whole, two in zip(SIZES, alone[case], share[case], strict=True):
            largest = max(float(each.abs().max()) for each in of_parameters(whole).values())
            apart = [largest_difference(part(whole), part(two)) for part in (of_parameters, of_losses)]
            rows.append((case, str(size), *(f"{value:.1e}" for value in (largest, *apart))))
    header = ("", "batch", "largest gradient", "largest difference of a gradient", "of a loss")
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
