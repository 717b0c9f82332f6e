"""Runs into models: which runs are meant, which are one model trained with several seeds, and what is compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hero_plugin.integrations.bases import config_from
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.drift.answers import Answers
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.run_folder import FREE_TO_CHANGE, RunFolder, RunFolderError

__all__ = ["Model", "find_runs", "models_of", "references"]

_OF_ONE_TRAINING = FREE_TO_CHANGE | {"seed", "threads", "versions"}
"""Settings in which the trainings of one model may differ."""


@dataclass(frozen=True)
class Model:
    """One thing to compare: a run, several of one model, or a submission."""

    name: str
    sources: tuple[str, ...]
    """The run folders, or the file."""
    seeds: tuple[int, ...] = (0,)
    base: str = ""
    """As in `hero-plugin train BASE`; empty where not known."""
    plain: bool = True
    """Without HERO."""
    answers: dict[str, list[Answers]] = field(default_factory=dict)
    """By set, one of each training."""


def find_runs(paths: Sequence[Path], screen: Screen) -> list[RunFolder]:
    """The runs that are meant: a folder that is no run, such as a sweep's, stands for the finished runs in it.

    Raises:
        RunFolderError: a folder holds no run; UserError: one is named twice.
    """
    runs: list[RunFolder] = []
    for path in paths:
        inside = [] if (path / "config.json").is_file() or not path.is_dir() else sorted(path.glob("*/config.json"))
        if not inside:
            runs.append(RunFolder.open(path))
            continue
        found = [RunFolder(file.parent) for file in inside]
        runs += [run for run in found if run.finished]
        left = [run.path.name for run in found if not run.finished]
        if left:
            screen.say(f"{path}: left out what is not finished: {', '.join(left)}")
        if len(left) == len(found):
            raise RunFolderError(f"{path}: none of the runs in it is finished")
    repeated = [str(path) for path, count in Counter(run.path.resolve() for run in runs).items() if count > 1]
    if repeated:
        raise UserError(f"named twice: {', '.join(repeated)}; give each run once")
    return runs


def models_of(runs: Sequence[RunFolder], *, pool: bool = True) -> list[tuple[Model, list[RunFolder]]]:
    """Models, in the order of their first runs, without answers yet; each with its runs, by seed.

    pool: runs whose settings differ in nothing but the seed are one model; else each run is one.

    Raises:
        UserError: two runs have the same settings and seed, so that they say the same twice.
    """
    groups: dict[Any, list[tuple[int, RunFolder]]] = {}
    for run in runs:
        settings = run.config()
        same = {key: value for key, value in settings.items() if key not in _OF_ONE_TRAINING}
        key = repr(sorted(same.items())) if pool else str(run.path)
        groups.setdefault(key, []).append((settings.get("seed", 0), run))
    models = []
    for group in groups.values():
        group.sort(key=lambda pair: pair[0])
        seeds = tuple(seed for seed, _ in group)
        members = [run for _, run in group]
        if len(set(seeds)) < len(seeds):
            named = ", ".join(str(run.path) for run in members)
            raise UserError(f"runs with the same settings and the same seed: {named}; give one of them, or --no-pool")
        settings = config_from(members[0].config(), str(members[0].config_file))
        sources = tuple(str(run.path) for run in members)
        models.append((Model(settings.model_name, sources, seeds, settings.base, settings.base_only), members))
    return _named_apart(models)


def references(models: Sequence[Model]) -> dict[str, str]:
    """{model: the one it is compared with}.

    A HERO model is compared with the plain one of its base. Where no such two are among the models, all are
    compared with the first.
    """
    plain = {model.base: model.name for model in reversed(models) if model.plain and model.base}
    found = {model.name: plain[model.base] for model in models if not model.plain and model.base in plain}
    return found or {model.name: models[0].name for model in models[1:]}


def _named_apart(models: list[tuple[Model, list[RunFolder]]]) -> list[tuple[Model, list[RunFolder]]]:
    """By what the model is, as HERO-EMB; by the folder, less the seed, where two are the same."""
    counts: Mapping[str, int] = Counter(model.name for model, _ in models)
    named = []
    for model, runs in models:
        folder = re.sub(r"-seed\d+$", "", runs[0].path.name) if len(runs) > 1 else runs[0].path.name
        named.append((model if counts[model.name] == 1 else replace(model, name=folder), runs))
    repeated = [name for name, count in Counter(model.name for model, _ in named).items() if count > 1]
    return [(replace(model, name=model.sources[0]) if model.name in repeated else model, runs) for model, runs in named]
