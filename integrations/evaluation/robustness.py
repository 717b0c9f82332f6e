"""Robustness of models to new words: scores by unseen words and pairs of wordings, compared, with intervals."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from hero_plugin.integrations.data.records import Record, is_reworded, original_key, rewording_of
from hero_plugin.integrations.scoring import metrics
from hero_plugin.integrations.scoring.intervals import CONFIDENCE, Bootstrap, Estimate, seeds_of_both
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import read_settings
from hero_plugin.integrations.training.run_folder import FREE_TO_CHANGE, SWEEP_FILE, RunFolder, RunFolderError


@dataclass(frozen=True)
class Originals:
    """The answers to the originals of P reworded queries."""

    rows: np.ndarray
    """(P,) where the reworded queries are among all of the set."""
    moments: np.ndarray
    """(P, 2) seconds."""
    ious: np.ndarray
    """(P,) overlaps with the annotation."""


@dataclass(frozen=True)
class Answers:
    """The answers of one training to the Q annotated queries of a set."""

    records: Sequence[Record]
    unseen: Sequence[Sequence[str]] | None
    """Of each query: its words that the training never had; None where it is not known what training had."""
    moments: np.ndarray
    """(Q, 2) seconds, the best of each query."""
    ious: np.ndarray
    """(Q,) overlaps with the annotation, the nearest where a query has several moments."""
    originals: Originals | None = None


def answers_of(
    records: Sequence[Record], moments: np.ndarray, unseen: Callable[[Record], Sequence[str]] | None
) -> Answers:
    """Return the answers to those queries that are annotated.

    ``moments`` are (records, 2) seconds, the best of each query; ``ValueError`` for another shape, or if not finite.
    ``unseen`` returns the words of a query that training never had; None where nobody knows.
    """
    rows = [row for row, record in enumerate(records) if record.moments]
    kept = [records[row] for row in rows]
    given = np.asarray(moments, dtype=np.float64)
    if given.shape != (len(records), 2):
        raise ValueError(f"moments must be ({len(records)}, 2), one for each query, got {given.shape}")
    found = given[rows]
    ious = metrics.nearest_iou(found, [record.moments for record in kept])
    return Answers(kept, None if unseen is None else [tuple(unseen(record)) for record in kept], found, ious)


def with_originals(answers: Answers, originals: Sequence[Record], moments: np.ndarray) -> Answers:
    """Return the answers together with those to the originals of the reworded queries.

    ``originals`` are as ``original_records`` returns them, ``moments`` (originals, 2) seconds.
    """
    place = {_key(record): row for row, record in enumerate(originals)}
    rows = [row for row, record in enumerate(answers.records) if is_reworded(record)]
    if not rows:
        return answers
    reworded = [answers.records[row] for row in rows]
    found = np.asarray(moments, dtype=np.float64)[[place[original_key(record)] for record in reworded]]
    ious = metrics.nearest_iou(found, [record.moments for record in reworded])
    return replace(answers, originals=Originals(np.asarray(rows), found, ious))


def _key(record: Record) -> tuple[str, str, str]:
    return record.video_id, record.query_id, record.sentence


@dataclass(frozen=True)
class Model:
    """One thing to compare: a run, several runs that differ in their seed alone, or a submission."""

    name: str
    sources: tuple[str, ...]
    """The run folders, or the file."""
    seeds: tuple[int, ...] = (0,)
    base: str = ""
    """As in ``hero-plugin train BASE``; empty where not known."""
    plain: bool = True
    """Without HERO."""
    answers: dict[str, list[Answers]] = field(default_factory=dict)
    """By set, one of each training."""
    against: tuple[str, ...] = ()
    """Names of what it is compared with, where a sweep says so."""


def find_runs(paths: Sequence[Path], screen: Screen) -> list[RunFolder]:
    """Return the runs in some folders: one that is no run, such as a sweep's, stands for the finished runs in it.

    Raises:
        RunFolderError: A folder holds no run.
        UserError: A run is named twice.
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


def models_of(runs: Sequence[RunFolder], *, pool: bool = True) -> list[Model]:
    """Return the models that runs are trainings of, in the order of their first runs, without answers yet.

    Runs of a sweep have its variants' names. Runs that differ in nothing but the seed are one model if ``pool``. Two of
    the same settings and seed, which say the same twice, are a ``UserError``.
    """
    free = FREE_TO_CHANGE | {"seed", "threads", "versions", "annotations"}
    groups: dict[str, list[tuple[int, RunFolder]]] = {}
    for run in runs:
        settings = run.config()
        # Also of what they learned: the annotations of a path may not be those of the other run's time.
        train = str(settings.get("annotations_train"))
        learned = settings.get("annotations", {}).get(train)
        same = repr([learned, *sorted((key, value) for key, value in settings.items() if key not in free)])
        groups.setdefault(same if pool else str(run.path), []).append((settings.get("seed", 0), run))
    models = []
    for group in groups.values():
        group.sort(key=lambda pair: pair[0])
        seeds, sources = tuple(seed for seed, _ in group), tuple(str(run.path) for _, run in group)
        if len(set(seeds)) < len(seeds):
            named = ", ".join(sources)
            raise UserError(f"runs with the same settings and the same seed: {named}; give one of them, or --no-pool")
        config, (variant, against) = group[0][1].settings(), _in_sweep(group[0][1])
        name = variant or config.model_name
        models.append(Model(name, sources, seeds, config.base, config.base_only, against=against))
    return _named_apart(models)


def _in_sweep(run: RunFolder) -> tuple[str, tuple[str, ...]]:
    """Return a run's variant in its sweep, and those that it is compared with; nothing for a run of no sweep."""
    folder = run.path.absolute()
    file = folder.parent / SWEEP_FILE
    for variant, about in (read_settings(file) if file.is_file() else {}).items():
        if folder.name in about["runs"]:
            return variant, tuple(about["compared_with"])
    return "", ()


def _named_apart(models: list[Model]) -> list[Model]:
    """Keep names such as HERO-EMB; where two are the same, use the folder's, less the seed, or its whole path."""

    def folder(model: Model) -> str:
        name = Path(model.sources[0]).name
        return re.sub(r"-seed\d+$", "", name) if len(model.sources) > 1 else name

    for other in (folder, lambda model: model.sources[0]):
        counts = Counter(model.name for model in models)
        models = [model if counts[model.name] == 1 else replace(model, name=other(model)) for model in models]
    return models


def references(models: Sequence[Model]) -> dict[str, str]:
    """Return, by name of a model, the name of the one that it is compared with.

    A sweep says it of its variants. Any other HERO model is compared with the plain one of its base. Where no such two
    are among the models, all are compared with the first.
    """
    plain = {model.base: model.name for model in reversed(models) if model.plain and model.base}
    found = {model.name: plain[model.base] for model in models if not model.plain and model.base in plain}
    names = {model.name for model in models}
    for model in models:
        if there := [name for name in model.against if name in names]:
            found[model.name] = there[0]
    return found or {model.name: models[0].name for model in models[1:]}


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
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")


def measure_robustness(models: Sequence[Model], draws: Draws) -> dict[str, Any]:
    """Return everything that is measured of the models, on the sets that they answered.

    {"interval": {level, resamples, seed, drawn}, "models": {name: {sources, seeds, compared_with}}, "notes": [...],
     "sets": {set: {"groups": [group, ...], "pairs": [group, ...]}}}

    A group is {"by", "group", "queries", "videos", "models": {name: figures}, "differences": {name: figures}, "best":
    {score: name}}. A difference is the model less the one it is compared with, by the seeds that both have. The best is
    better than every other model by an interval that excludes 0. Each figure is {"value", "low", "high"} in percent,
    null where it is not known, with "std" (sample standard deviation) and "values" of several trainings. Of groups, the
    figures are R1 and mIoU; of pairs there are those of "original", "reworded" and "change" (reworded less original),
    and "consistency". There are pairs where queries are reworded and their originals were answered.

    Raises:
        UserError: The models did not answer the same queries.
    """
    sets = {}
    against = references(models)
    by_name = {model.name: model for model in models}
    notes = [note for name, other in against.items() if (note := _paired(by_name[name], by_name[other])[1])]
    for name in models[0].answers:
        notes += _check_same(name, models)
        first = models[0].answers[name][0]
        pairs = np.zeros(0, int) if first.originals is None else first.originals.rows
        sets[name] = {
            "groups": _by_group(name, models, draws, np.arange(len(first.records)), _scores),
            "pairs": _by_group(name, models, draws, pairs, _scores_of_pairs),
        }
    several = draws.trainings and any(len(model.seeds) > 1 for model in models)
    drawn = "videos and training seeds" if several else "videos"
    return {
        "interval": {"level": CONFIDENCE / 100, "resamples": draws.number, "seed": draws.seed, "drawn": drawn},
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
    """Raise where models answered different queries; return notes where they know different words."""
    first = models[0].answers[name][0]
    asked = [(_key(record), record.moments) for record in first.records]
    notes = []
    for model in models:
        for source, answers in zip(model.sources, model.answers[name], strict=True):
            if [(_key(record), record.moments) for record in answers.records] != asked:
                raise UserError(
                    f"{name}: {source} answered {len(answers.records)} queries, {models[0].sources[0]} "
                    f"{len(asked)}, and not the same ones of the same moments; only answers to the same queries can be "
                    "compared (runs may differ in their annotations, or in what they leave out: give --annotations, "
                    "--on-broken)"
                )
            if answers.unseen is None or first.unseen is None:
                continue
            other = sum(len(a) != len(b) for a, b in zip(answers.unseen, first.unseen, strict=True))
            if other:
                notes.append(
                    f"{name}: {source} was trained on other words than {models[0].sources[0]}: {other} queries have "
                    "another number of unseen words; the groups are those of the latter"
                )
    return notes


def _paired(model: Model, other: Model) -> tuple[tuple[int, ...], str]:
    """Return the seeds by which two models are compared, and a note where these are not all of both.

    There are none where the two share fewer than two of several: then the difference is that of their means.
    """
    if model.seeds == other.seeds or max(len(model.seeds), len(other.seeds)) == 1:
        return model.seeds, ""
    shared = tuple(seed for seed in model.seeds if seed in other.seeds)
    have = seeds_of_both(model.name, other.name, {each.name: each.seeds for each in (model, other)})
    if len(shared) < 2:
        return (), f"{model.name} minus {other.name} is not paired by seed: {have}"
    return shared, f"{model.name} minus {other.name} is over the seeds {', '.join(map(str, shared))} of both: {have}"


Measured = dict[str, tuple[tuple[str, ...], Estimate]]
"""{what: (names of its figures, the figures)}."""


def _compared(
    models: Sequence[Model], measure: Callable[[Model, tuple[int, ...]], Measured]
) -> dict[str, dict[str, Any]]:
    """Return the models' figures (``measure`` gives those of a model and its seeds), differences, and the best."""
    by_name, against = {model.name: model for model in models}, references(models)
    found = {name: measure(model, model.seeds) for name, model in by_name.items()}

    @cache
    def difference(name: str, other: str) -> Measured:
        pair = by_name[name], by_name[other]
        seeds, note = _paired(*pair)
        one, two = (measure(model, seeds) if seeds and note else found[model.name] for model in pair)
        return {what: (scores, each - two[what][1]) for what, (scores, each) in one.items()}

    best = {}
    for place, score in enumerate(metrics.SCORES):
        values = {name: float(each[""][1].value[place]) for name, each in found.items() if "" in each}
        winner = max(values, key=values.__getitem__, default="")
        others = [difference(winner, name)[""][1] for name in values if name != winner]
        if others and all(each.interval()[0][place] > 0 for each in others):
            best[score] = winner
    return {
        "models": {name: _plain(each) for name, each in found.items()},
        "differences": {name: _plain(difference(name, against[name]), True) for name in found if name in against},
        "best": best,
    }


def _by_group(
    name: str, models: Sequence[Model], draws: Draws, rows: np.ndarray, measure: Callable[..., Measured]
) -> list[dict[str, Any]]:
    """Measure the models on some queries of a set, all of them and each group."""
    first = models[0].answers[name][0]
    if not len(rows):
        return []
    videos = [first.records[row].video_id for row in rows]
    bootstrap = Bootstrap(videos, number=draws.number, seed=draws.seed, trainings=draws.trainings)
    parts = []
    for by, group, where in _masks(first, rows):

        def measured(model: Model, seeds: tuple[int, ...], where: np.ndarray = where) -> Measured:
            answers = [model.answers[name][model.seeds.index(seed)] for seed in seeds]
            return measure(answers, where, partial(bootstrap.mean, seeds=seeds))

        counts = {"queries": int(where.sum()), "videos": bootstrap.videos(where)}
        parts.append({"by": by, "group": group, **counts, **_compared(models, measured)})
    return parts


def _masks(answers: Answers, rows: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield the groups of some queries: all, by unseen words, and, of rewordings, by kind of change and part."""
    yield "all", "all", np.ones(len(rows), dtype=bool)
    if answers.unseen is not None:
        for group, where in metrics.by_unseen_words([len(answers.unseen[row]) for row in rows]).items():
            yield "unseen words", group, where
    rewordings = [rewording_of(answers.records[row]) for row in rows]
    for by, attribute in (("change", "kind"), ("part", "part")):
        labels = [getattr(each, attribute) if each else "not reworded" for each in rewordings]
        if not set(labels) <= {"not reworded", ""}:
            for group, where in metrics.by_label([label or "unknown" for label in labels]).items():
                yield by, group, where


def _scores(trainings: Sequence[Answers], where: np.ndarray, mean: Callable[..., Estimate]) -> Measured:
    return {"": (metrics.SCORES, mean(metrics.query_scores(np.stack([each.ious for each in trainings])), where))}


def _scores_of_pairs(trainings: Sequence[Answers], where: np.ndarray, mean: Callable[..., Estimate]) -> Measured:
    """Measure originals, rewordings, their difference, and whether the answer moves between the two."""
    found = [(each, each.originals) for each in trainings if each.originals is not None]
    reworded_iou = np.stack([each.ious[pairs.rows] for each, pairs in found])
    original_iou = np.stack([pairs.ious for _, pairs in found])
    reworded = np.stack([each.moments[pairs.rows] for each, pairs in found])
    original = np.stack([pairs.moments for _, pairs in found])
    values, weights = metrics.consistency(original, reworded, original_iou, reworded_iou)
    before, after = mean(metrics.query_scores(original_iou), where), mean(metrics.query_scores(reworded_iou), where)
    return {
        "original": (metrics.SCORES, before),
        "reworded": (metrics.SCORES, after),
        "change": (metrics.SCORES, after - before),
        "consistency": (metrics.CONSISTENCY, mean(values, weights * where[:, None])),
    }


def _plain(measured: Measured, signed: bool = False) -> dict[str, Any]:
    """Return figures as JSON has them; the one without a name stands alone.

    Intervals end where figures do: at 0 and 100, those of differences at -100 and 100.
    """
    plain: dict[str, Any] = {}
    for what, (names, estimate) in measured.items():
        least = -100 if signed or what == "change" else 0
        low, high = (np.clip(end, least, 100) for end in estimate.interval())
        rows = zip(names, estimate.value, low, high, strict=True)
        plain[what] = {name: dict(zip(("value", "low", "high"), map(_number, row), strict=True)) for name, *row in rows}
        if estimate.trainings is not None and len(estimate.trainings) > 1:
            for name, values in zip(names, estimate.trainings.T, strict=True):
                plain[what][name] |= {"std": _number(values.std(ddof=1)), "values": list(map(_number, values))}
    return plain[""] if set(plain) == {""} else plain


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 3)
