"""Speed of QVHighlights' evaluation beside the official script's, in one run on the same predictions."""

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hero_plugin.integrations.scoring.qvhighlights import qvhighlights_scores
from hero_plugin.integrations.support import UserError, write_json
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.tables import terminal_table
from hero_plugin.integrations.tools.bench.upstream import OFFICIAL_WORKERS, Evaluation, official_evaluation


@dataclass
class EvalBenchConfig:
    """Time QVHighlights' evaluation here and by its official script, in turns, and compare every figure."""

    upstream: Path
    """A clone of jayleicn/moment_detr."""
    submission: Path | None = None
    """Predictions; the clone's sample for the validation set unless given."""
    annotations: Path | None = None
    """The clone's validation set unless given."""
    rounds: int = 3
    """How often each one runs."""
    json: Path | None = None
    """Write the numbers here."""


def main(config: EvalBenchConfig) -> None:
    """Measure, print, write."""
    if config.rounds < 1:
        raise UserError(f"--rounds must be at least 1, got {config.rounds}")
    numbers, screen = measure(config), Screen()
    own, rows = statistics.median(numbers["seconds"]["hero-plugin"]), []
    for name, times in numbers["seconds"].items():
        median = statistics.median(times)
        rows.append((name, *(f"{each:.3f} s" for each in (median, min(times), max(times))), f"{median / own:.1f}"))
    header = ("", "median", "fastest", "slowest", "times as long")
    screen.show(terminal_table(header, rows, title=f"evaluation of {numbers['queries']} queries"))
    screen.say(f"largest difference of {numbers['figures']} figures: {numbers['difference']:g}")
    if config.json is not None:
        write_json(config.json, numbers)


def measure(config: EvalBenchConfig) -> dict[str, Any]:
    """Return the seconds of each way, one per round, and the largest difference of any figure from ours."""
    submission = _lines(config.submission or config.upstream / "standalone_eval" / "sample_val_preds.jsonl")
    annotations = _lines(config.annotations or config.upstream / "data" / "highlight_val_release.jsonl")
    seconds: dict[str, list[float]] = {}
    difference, own = 0.0, _flat(qvhighlights_scores(submission, annotations))

    def run(name: str, evaluate: Evaluation) -> None:
        nonlocal difference
        start = time.perf_counter()
        figures = evaluate(submission, annotations)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        difference = max(difference, *(abs(value - own[key]) for key, value in _flat(figures).items()))

    for _ in range(config.rounds):
        for workers in (OFFICIAL_WORKERS, 1):
            with official_evaluation(config.upstream, workers) as evaluate:
                run(f"official, {workers} process{'es' * (workers > 1)}", evaluate)
        run("hero-plugin", qvhighlights_scores)
    return {"queries": len(submission), "figures": len(own), "difference": difference, "seconds": seconds}


def _lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in figures.items():
        flat.update(_flat(value, f"{prefix}{key} ") if isinstance(value, Mapping) else {prefix + key: value})
    return flat
