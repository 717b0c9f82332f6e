"""Models by how far queries drift: scores by group, pairs of wordings, differences, all with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hero_plugin.bootstrap import Bootstrap, Estimate
from hero_plugin.consistency import CONSISTENCY, consistency
from hero_plugin.integrations.drift.answers import Answers
from hero_plugin.integrations.drift.models import Model, references
from hero_plugin.integrations.errors import UserError
from hero_plugin.metrics import SCORES, query_scores
from hero_plugin.query_groups import by_label, by_unseen_words

__all__ = ["LEVEL", "Draws", "drift_report"]

LEVEL = 0.95
"""Of the intervals."""

Measured = dict[str, tuple[tuple[str, ...], Estimate]]
"""{what: (names of its figures, the figures)}."""


@dataclass(frozen=True)
class Draws:
    """How the intervals are drawn."""

    number: int = 2000
    seed: int = 0
    trainings: bool = True
    """Draw trainings, too, where a model has several."""

    def __post_init__(self) -> None:
        if self.number < 100:
            raise UserError(f"--resamples must be at least 100 to say anything of a 95 % interval, got {self.number}")

    def of(self, videos: Sequence[str]) -> Bootstrap:
        return Bootstrap(videos, number=self.number, seed=self.seed, trainings=self.trainings)


def drift_report(models: Sequence[Model], draws: Draws) -> dict[str, Any]:
    """Everything that is measured of the models, on the sets that they answered.

    {"interval": {level, resamples, seed, drawn}, "models": {name: {sources, seeds, compared_with}}, "notes": [...],
     "sets": {set: {"groups": [group, ...], "pairs": [group, ...]}}}

    A group is {"by", "group", "queries", "videos", "models": {name: figures}, "differences": {name: figures}}; a
    difference is the model less the one it is compared with. Each figure is {"value", "low", "high"} in percent, null
    where it is not known. Of groups, the figures are R1 and mIoU; of pairs there are those of "original", "reworded"
    and "change" (reworded less original), and "consistency". There are pairs where queries are reworded and their
    originals were answered.

    Raises:
        UserError: the models did not answer the same queries.
    """
    against = references(models)
    sets, notes = {}, []
    for name in models[0].answers:
        notes += _check_same(name, models)
        sets[name] = {"groups": _groups(name, models, against, draws), "pairs": _pairs(name, models, against, draws)}
    several = draws.trainings and any(len(model.seeds) > 1 for model in models)
    return {
        "interval": {
            "level": LEVEL,
            "resamples": draws.number,
            "seed": draws.seed,
            "drawn": "videos and training seeds" if several else "videos",
        },
        "models": {
            model.name: {
                "sources": list(model.sources),
                "seeds": list(model.seeds),
                "compared_with": against.get(model.name),
            }
            for model in models
        },
        "notes": notes,
        "sets": sets,
    }


def _check_same(name: str, models: Sequence[Model]) -> list[str]:
    """Raise where models answered different queries; say where they know different words."""
    first = models[0].answers[name][0]
    notes = []
    for model in models:
        for source, answers in zip(model.sources, model.answers[name], strict=True):
            if answers.keys != first.keys:
                raise UserError(
                    f"{name}: {source} answered {len(answers.keys)} queries, {models[0].sources[0]} "
                    f"{len(first.keys)}, and not the same ones; only answers to the same queries can be compared "
                    "(runs may have been told differently what to leave out: give --on-broken)"
                )
            other = sum(len(a) != len(b) for a, b in zip(answers.unseen, first.unseen, strict=True))
            if other:
                notes.append(
                    f"{name}: {source} was trained on other words than {models[0].sources[0]}: {other} queries have "
                    "another number of unseen words; the groups are those of the latter"
                )
    return notes


def _groups(name: str, models: Sequence[Model], against: Mapping[str, str], draws: Draws) -> list[dict[str, Any]]:
    first = models[0].answers[name][0]
    if not first.records:
        return []
    bootstrap = draws.of(first.videos)
    scores = {model.name: query_scores(np.stack([each.ious for each in model.answers[name]])) for model in models}
    parts = []
    for by, group, where in _masks(first, np.arange(len(first.records))):
        measured: dict[str, Measured] = {
            model.name: {"": (SCORES, bootstrap.mean(scores[model.name], where, seeds=model.seeds))} for model in models
        }
        parts.append(_part(by, group, where, bootstrap, measured, against))
    return parts


def _pairs(name: str, models: Sequence[Model], against: Mapping[str, str], draws: Draws) -> list[dict[str, Any]]:
    first = models[0].answers[name][0]
    if first.originals is None:
        return []
    rows = first.originals.rows
    bootstrap = draws.of([first.videos[row] for row in rows])
    parts = []
    for by, group, where in _masks(first, rows):
        measured: dict[str, Measured] = {}
        for model in models:
            reworded, original, values, weights = _both(model.answers[name])
            before = bootstrap.mean(original, where, seeds=model.seeds)
            after = bootstrap.mean(reworded, where, seeds=model.seeds)
            moved = bootstrap.mean(values, weights * where[:, None], seeds=model.seeds)
            measured[model.name] = {
                "original": (SCORES, before),
                "reworded": (SCORES, after),
                "change": (SCORES, after - before),
                "consistency": (CONSISTENCY, moved),
            }
        parts.append(_part(by, group, where, bootstrap, measured, against))
    return parts


def _both(trainings: Sequence[Answers]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the rewordings and of the originals (S, P, 4), and what pairs add to the consistency (S, P, 5) x 2."""
    found = [(each, each.originals) for each in trainings if each.originals is not None]
    after = np.stack([each.ious[pairs.rows] for each, pairs in found])
    before = np.stack([pairs.ious for _, pairs in found])
    moments = np.stack([each.moments[pairs.rows] for each, pairs in found])
    originals = np.stack([pairs.moments for _, pairs in found])
    return query_scores(after), query_scores(before), *consistency(originals, moments, before, after)


def _masks(answers: Answers, rows: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """The groups of some of the queries: all, by unseen words, and, of rewordings, by kind of change and part."""
    yield "all", "all", np.ones(len(rows), dtype=bool)
    for group, where in by_unseen_words([len(answers.unseen[row]) for row in rows]).items():
        yield "unseen words", group, where
    for by, every in (("change", answers.changes), ("part", answers.parts)):
        labels = [every[row] for row in rows]
        if not set(labels) <= {"not reworded", ""}:
            for group, where in by_label([label or "unknown" for label in labels]).items():
                yield by, group, where


def _part(
    by: str,
    group: str,
    where: np.ndarray,
    bootstrap: Bootstrap,
    measured: Mapping[str, Measured],
    against: Mapping[str, str],
) -> dict[str, Any]:
    differences = {
        name: {
            what: (names, estimate - measured[against[name]][what][1]) for what, (names, estimate) in figures.items()
        }
        for name, figures in measured.items()
        if name in against
    }
    return {
        "by": by,
        "group": group,
        "queries": int(where.sum()),
        "videos": bootstrap.videos(where),
        "models": {name: _plain(figures) for name, figures in measured.items()},
        "differences": {name: _plain(figures, signed=True) for name, figures in differences.items()},
    }


def _plain(measured: Measured, signed: bool = False) -> dict[str, Any]:
    """As JSON has it; what has no name of its own stands alone. Intervals of what is no difference end at 0 and 100."""
    plain = {}
    for what, (names, estimate) in measured.items():
        low, high = estimate.interval(LEVEL)
        if not signed and what != "change":
            low, high = np.clip(low, 0, 100), np.clip(high, 0, 100)
        plain[what] = {
            name: {"value": _number(estimate.value[k]), "low": _number(low[k]), "high": _number(high[k])}
            for k, name in enumerate(names)
        }
    return plain[""] if set(plain) == {""} else plain


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 3)
