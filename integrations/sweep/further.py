"""Finished runs on further sets: rewordings, another dataset, whatever came later. Each is scored once and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hero_plugin.integrations.checksum import checksum
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.evaluate import EvalConfig, Reader, evaluate_run
from hero_plugin.integrations.files import write_json
from hero_plugin.integrations.interrupts import Interrupted, Interrupts
from hero_plugin.integrations.problems import DataError
from hero_plugin.integrations.sweep.plan import FurtherSet, Job

__all__ = ["further_scores", "score_further"]


def score_further(
    jobs: Sequence[Job], sets: Sequence[FurtherSet], checkpoint: str, threads: int, screen: Screen
) -> list[str]:
    """Score the finished runs on the sets that are there, where they have not been. Returns what failed, and why.

    Raises:
        Interrupted: with all scores so far kept.
    """
    todo = [
        (each, [job for job in jobs if job.run.finished and not _known(job, each, checkpoint)])
        for each in sets
        if not each.missing()
    ]
    total, done = sum(len(left) for _, left in todo), 0
    failed: dict[tuple[str, str], list[str]] = {}
    if not total:
        return []
    torch.set_num_threads(threads)
    with Interrupts() as interrupts, screen.working("further sets (runs)", total) as progress:
        for each, left in todo:
            config = _evaluation(each, checkpoint)
            reader = Reader(config, screen)
            for job in left:
                try:
                    found = evaluate_run(job.run, replace(config, device=job.config.device), reader, Screen(quiet=True))
                    _keep(job, each, checkpoint, found.scores[each.name])
                    screen.say(f"scored on {each.name}: {job.name}")
                except (UserError, DataError, FileNotFoundError) as error:
                    failed.setdefault((each.name, str(error)), []).append(job.name)
                done += 1
                progress(done, total)
                if interrupts.requested:
                    raise Interrupted("stopped; every score so far is kept. The same command carries on")
    return [f"{name}, by {'; '.join(runs)}: {why}" for (name, why), runs in failed.items()]


def further_scores(job: Job, sets: Sequence[FurtherSet], checkpoint: str) -> dict[str, dict[str, float]]:
    """Scores of a run by set, of those sets on which it has been scored as they and it are now."""
    found = {each.name: _known(job, each, checkpoint) for each in sets if not each.missing()}
    return {name: scores for name, scores in found.items() if scores}


def _evaluation(each: FurtherSet, checkpoint: str) -> EvalConfig:
    annotations = (f"{each.name}={each.annotations}",)
    return EvalConfig(
        run=(), annotations=annotations, checkpoint=checkpoint, **each.sources(), pairs=False, resamples=0
    )


def _known(job: Job, each: FurtherSet, checkpoint: str) -> dict[str, float] | None:
    """What the run's file says, unless the run was trained again or the annotations have changed since."""
    kept = _read(job).get(each.name, {}).get(checkpoint)
    return kept["scores"] if kept and kept["made_from"] == _made_from(job, each) else None


def _keep(job: Job, each: FurtherSet, checkpoint: str, scores: dict[str, float]) -> None:
    kept = _read(job)
    made_from = _made_from(job, each)
    kept.setdefault(each.name, {})[checkpoint] = {"made_from": made_from, "scores": scores}
    write_json(_file(job), kept)


def _made_from(job: Job, each: FurtherSet) -> dict[str, Any]:
    """What scores hang on: the training and the annotations by contents, features and vectors, often large, by name.

    The training by its own results, which are small and stay where checkpoints have been deleted.
    """
    given = {name: json.loads(json.dumps(value, default=str)) for name, value in each.sources().items() if value}
    return {"training": _checksum(job.run.results_file), "annotations": _checksum(each.annotations), **given}


def _checksum(path: Path) -> str:
    status = path.stat()
    return _checksum_of(path, status.st_mtime_ns, status.st_size)


@cache
def _checksum_of(path: Path, changed: int, size: int) -> str:
    return checksum(path)


def _read(job: Job) -> dict[str, Any]:
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(_file(job).read_text("utf-8"))
    return {}


def _file(job: Job) -> Path:
    return job.config.output.with_name(job.config.output.name + ".sets.json")
