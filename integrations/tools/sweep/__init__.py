"""``hero-plugin sweep``: variants times seeds, each in a process and a run folder of its own, then one table.

The file says what to run; relative paths in it start from the current folder, as flags do:

    {
      "output": "runs/charades-cd",
      "seeds": [0, 1, 2],
      "settings": {"annotations_train": "train.json", "annotations_test": ["iid=iid.json"], "epochs": 20},
      "variants": {
        "EMB": {"base_only": true},
        "HERO-EMB": {},
        "without SGVF": {"hero": {"sgvf": false}}
      },
      "compare": {"HERO-EMB": "EMB", "without SGVF": "HERO-EMB"},
      "sets": {"reworded": "ov.json", "elsewhere": {"annotations": "anet.json", "features": ["features/anet"]}}
    }

The names inside ``settings`` and the variants are those of ``hero-plugin train BASE --config``; ``"base"`` there
says which (``emb`` if none), so that one table can hold several bases. ``sets`` are further sets that the finished
runs are scored on. What is finished is skipped and what was interrupted resumes, so the same command carries on
after any interruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import write_json, write_text
from hero_plugin.integrations.tools.sweep.report import collect, markdown
from hero_plugin.integrations.tools.sweep.sweep import log_of, read_plan, run_jobs, score_further

__all__ = ["SweepConfig", "main"]


@dataclass
class SweepConfig:
    """Train variants over several seeds, tabulate and draw them. The file's form: docs/guide/sweep.md."""

    config: Path
    """JSON or TOML: output, seeds, settings, variants; compare, sets."""
    jobs: int = 1
    """Runs at the same time."""
    threads: int = 1
    """CPU threads of each."""
    only: tuple[str, ...] = ()
    """Train and score these variants only; the table still holds all that is finished."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint's scores the table holds."""
    table_only: bool = False
    """Train and score nothing; tabulate what is finished."""
    figures: bool = True
    """Draw the table, a picture for each figure of merit."""


def main(config: SweepConfig, screen: Screen | None = None) -> int:
    """Run what is missing, write ``results.md``, ``results.json`` and ``figures/``; 1 if anything failed, else 0."""
    screen = screen or Screen()
    if config.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {config.jobs}")
    plan = read_plan(config.config, config.threads)
    unknown = [name for name in config.only if name not in {job.variant for job in plan.jobs}]
    if unknown:
        known = ", ".join(dict.fromkeys(job.variant for job in plan.jobs))
        raise UserError(f"--only {', '.join(unknown)}: no such variant; there are {known}")
    for each in plan.sets:
        if absent := each.missing():
            screen.say(f"note: {each.name} waits for {', '.join(map(str, absent))}; once it is there, run this again")
    failed = []
    if not config.table_only:
        todo = [job for job in plan.jobs if not config.only or job.variant in config.only]
        failed = [f"{job.name}; see {log_of(job)}" for job in run_jobs(todo, config.jobs, screen)]
        failed += score_further(todo, plan.sets, config.checkpoint, config.jobs * config.threads, screen)
    results = collect(plan, config.checkpoint)
    text = markdown(results)
    write_json(plan.output / "results.json", results)
    write_text(plan.output / "results.md", text)
    screen.say("\n" + text)
    screen.say(f"table: {plan.output / 'results.md'}, numbers: {plan.output / 'results.json'}")
    if config.figures and results["sets"]:
        from hero_plugin.integrations.tools.sweep.report import draw_sweep  # matplotlib takes a second

        screen.say(f"figures: {', '.join(map(str, draw_sweep(results, plan.output / 'figures')))}")
    for what in failed:
        screen.say(f"failed: {what}")
    return 1 if failed else 0
