"""Models by how far queries drift: scores by group, pairs of wordings, differences, all with intervals."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hero_plugin.integrations.data.annotations import read_sentences
from hero_plugin.integrations.data.formats import qid
from hero_plugin.integrations.data.records import Record, is_reworded, original_key, rewording_of
from hero_plugin.integrations.data.words import open_tokenizer
from hero_plugin.integrations.scoring.bootstrap import Bootstrap, Estimate
from hero_plugin.integrations.scoring.metrics import (
    CONSISTENCY,
    SCORES,
    by_label,
    by_unseen_words,
    consistency,
    nearest_iou,
    query_scores,
)
from hero_plugin.integrations.scoring.open_vocabulary import training_vocabulary, unseen_words
from hero_plugin.integrations.scoring.submissions import WINDOWS, Submission
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.run_folder import FREE_TO_CHANGE, RunFolder, RunFolderError

# What a trained model answers to the queries of a set, and to what its reworded queries reword.


Unseen = Callable[[Record], Sequence[str]]
"""The words of a query that training never had."""


@dataclass(frozen=True)
class Originals:
    """What is answered to the originals of P reworded queries."""

    rows: np.ndarray
    """(P,) where the reworded queries are among all of the set."""
    moments: np.ndarray
    """(P, 2) seconds."""
    ious: np.ndarray
    """(P,) overlaps with the annotation."""


@dataclass(frozen=True)
class Answers:
    """What one training answers to the Q annotated queries of a set."""

    records: Sequence[Record]
    unseen: Sequence[Sequence[str]]
    """Of each query: its words that the training never had."""
    moments: np.ndarray
    """(Q, 2) seconds, the best of each query."""
    ious: np.ndarray
    """(Q,) overlaps with the annotation, the nearest where a query has several moments."""
    originals: Originals | None = None

    @property
    def videos(self) -> list[str]:
        return [record.video_id for record in self.records]

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """What tells the queries apart, the same for every model."""
        return [(record.video_id, record.query_id, record.sentence) for record in self.records]

    @property
    def changes(self) -> list[str]:
        """Of each query: the kind of its rewording."""
        return [found.kind if (found := rewording_of(record)) else "not reworded" for record in self.records]

    @property
    def parts(self) -> list[str]:
        """Of each query: what its rewording changed, a person, a thing, an action or a circumstance; "" if unknown."""
        return [found.part if (found := rewording_of(record)) else "not reworded" for record in self.records]


def answers_of(records: Sequence[Record], moments: np.ndarray, unseen: Unseen) -> Answers:
    """Answers to those of the queries that are annotated.

    moments: (records, 2) seconds, the best of each query.
    """
    rows = [row for row, record in enumerate(records) if record.moments]
    kept = [records[row] for row in rows]
    found = np.asarray(moments, dtype=np.float64).reshape(-1, 2)[rows]
    return Answers(
        kept, [tuple(unseen(record)) for record in kept], found, nearest_iou(found, [record.moments for record in kept])
    )


def with_originals(answers: Answers, originals: Sequence[Record], moments: np.ndarray) -> Answers:
    """The same with what the model answers to the originals.

    originals: as of `vocab.rewording.original_records`; moments: (originals, 2) seconds.
    """
    known = {(record.video_id, record.query_id, record.sentence): row for row, record in enumerate(originals)}
    rows = [row for row, record in enumerate(answers.records) if is_reworded(record)]
    if not rows:
        return answers
    reworded = [answers.records[row] for row in rows]
    found = np.asarray(moments, dtype=np.float64)[[known[original_key(record)] for record in reworded]]
    pairs = Originals(np.asarray(rows), found, nearest_iou(found, [record.moments for record in reworded]))
    return Answers(answers.records, answers.unseen, answers.moments, answers.ious, pairs)


# Runs into models: which runs are meant, which are one model trained with several seeds, and what is compared.


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


# Submissions as models to compare by drift.


SET = "submission"


def submitted_models(
    submissions: Mapping[Path, Submission], records: Sequence[Record], train: Sequence[Path], tokenizer: str
) -> list[Model]:
    """One model a submission, with the first window of each query as its answer.

    records: the annotations; train: annotations whose words the models have seen.

    Raises:
        UserError: a submission has no windows.
    """
    split = open_tokenizer(tokenizer)
    vocabulary = training_vocabulary(split(record.sentence) for file in train for record in read_sentences(file))
    stems = Counter(path.stem for path in submissions)
    models = []
    for path, submission in submissions.items():
        if WINDOWS not in submission.lines[0]:
            raise UserError(f"{path}: no {WINDOWS}, and drift is measured by where a model finds the moments")
        windows = {line["qid"]: line[WINDOWS][0][:2] for line in submission.lines}
        answered = [record for record in records if qid(record) in windows]
        moments = np.array([windows[qid(record)] for record in answered], dtype=np.float64)
        answers = answers_of(answered, moments, lambda record: unseen_words(split(record.sentence), vocabulary))
        name = path.stem if stems[path.stem] == 1 else str(path)
        models.append(Model(name, (str(path),), answers={SET: [answers]}))
    return models
