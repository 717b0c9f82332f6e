"""The cost of a step of every base, in numbers that are the same on every run.

``python -m tests.speed.counts`` prints them beside what ``expected.json`` holds, and writes them there: commit it where
a change of cost is meant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from hero_plugin.integrations.tools.bench.measure import compare
from hero_plugin.integrations.tools.bench.models import Setting, Variant
from hero_plugin.integrations.training.bases import BASES
from tests.tools.bench.small import small

EXPECTED = Path(__file__).parent / "expected.json"
CASES = [(base, mode) for base in BASES for mode in ("train", "inference")]
LEVELS = 4


class Cost(NamedTuple):
    """Of one step."""

    flops: int
    operators: int
    memory: int
    """Bytes, the most at once."""


@lru_cache
def costs(base: str, mode: str, names: tuple[str, ...] = ()) -> Mapping[str, Cost]:
    """By model: the plain base, HERO at four levels and, in training, its two cheaper forms."""
    names = names or (("plain", "hero", "pair", "checkpoint") if mode == "train" else ("plain", "hero"))
    models = [Variant(name, 0 if name == "plain" else LEVELS) for name in names]
    measured = compare(Setting(base, mode, "cpu"), models, small(base), steps=0)
    return {each.model.name: Cost(each.flops, each.operators, each.memory) for each in measured}


def expected(base: str, mode: str) -> Mapping[str, Cost]:
    """What is committed."""
    return {name: Cost(**cost) for name, cost in json.loads(EXPECTED.read_text("utf-8"))[f"{base} {mode}"].items()}


def main() -> None:
    before = json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.is_file() else {}
    found = {
        f"{base} {mode}": {name: cost._asdict() for name, cost in costs(base, mode).items()} for base, mode in CASES
    }
    table = Table(title="cost of a step, and how it compares with what was expected")
    for column in ("step", "model", *Cost._fields):
        table.add_column(column, justify="left" if column in ("step", "model") else "right", no_wrap=True)
    for case, models in found.items():
        for name, cost in models.items():
            old = before.get(case, {}).get(name)
            cells = [f"{now:,}" + (f" ({now / old[what] - 1:+.1%})" if old else "") for what, now in cost.items()]
            table.add_row(case, name, *cells)
    Console(width=120).print(table)
    EXPECTED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
