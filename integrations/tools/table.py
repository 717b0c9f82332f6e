"""A table for a paper from any models' submissions or scores: ``hero-plugin table NAME=FILE ...``."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console

from hero_plugin.integrations.data.checks import OnBroken, as_number, load_durations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import same_words
from hero_plugin.integrations.evaluation.official import read_answered, submitted_answers, unseen_by
from hero_plugin.integrations.evaluation.robustness import Answers, Draws, Model, answers_of, measure_robustness
from hero_plugin.integrations.evaluation.robustness_report import comparison_table
from hero_plugin.integrations.scoring.intervals import METRICS, seeds_of_both, summary, trainings_table
from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.scoring.submissions import read_submission
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.plotting import save_figure, table_figure
from hero_plugin.integrations.support.settings import parse_named_paths
from hero_plugin.integrations.support.tables import WRITERS, Table, check_endings, write_table


@dataclass
class TableConfig:
    """Tabulate any models side by side, over sets and seeds, with intervals of their differences.

    Each file is one training of a model: HERO=h-0.jsonl HERO=h-1.jsonl, which a shell makes of HERO=h-{0,1}.jsonl. The
    number in which a model's files differ is the seed; models are compared seed by seed. Files are submissions in
    QVHighlights' form or what `hero-plugin eval --predictions` writes, for which --annotations is needed, or scores.
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME[@SET]=FILE")]
    """Submissions or JSON files of scores, by the model's name. @SET says which annotations a submission is for."""
    annotations: tuple[str, ...] = ()
    """Annotations that the submissions answer, as PATH or NAME=PATH, any format."""
    train: tuple[Path, ...] = ()
    """Training annotations: also give the scores by words that these never had."""
    against: str = ""
    """The model that the others are compared with; none: the one named base, else the first."""
    metrics: tuple[str, ...] = ()
    """Columns; none: the usual scores."""
    format: Literal["terminal", "markdown", "csv", "latex", "json"] = "terminal"
    """What is printed."""
    output: tuple[Path, ...] = ()
    """Write the table here instead: .tex for LaTeX, .csv, .md or .json, by the ending."""
    figure: Path | None = None
    """Draw the table here, as a PNG or PDF."""
    durations: Path | None = None
    """Lengths of the videos, for annotations that do not hold them."""
    tokenizer: str = "words"
    """What a word is, as in `hero-plugin vocab stats`."""
    on_broken: OnBroken = "error"
    """Annotations that cannot be used: list them and stop, or leave their queries out, of the submissions, too."""
    draw_seeds: bool = True
    """Draw trainings for the intervals, too, where a model has several; else they are about these trainings."""
    resamples: int = 2000
    """Draws behind the intervals of submissions."""
    seed: int = 0
    """Of the draws."""

    sets = ("annotations",)


def main(config: TableConfig, screen: Screen | None = None) -> Table:
    """Read, measure, print or write; return the table."""
    screen = screen or Screen(None if config.format == "terminal" else Console(stderr=True))  # the table stands alone
    check_endings("--output", config.output)
    if config.figure is not None and config.figure.suffix.lower() not in (".png", ".pdf"):
        raise UserError(f"--figure {config.figure}: a figure is a .png or a .pdf")
    models = named_files(config.files)
    if config.against and config.against not in models:
        raise UserError(f"--against {config.against}: no such model; there are {', '.join(models)}")
    against = config.against or ("base" if "base" in models else next(iter(models)))
    scored = [path for files in models.values() for _, path in files if _is_scores(path)]
    if scored and len(scored) < sum(map(len, models.values())):
        raise UserError(f"{scored[0]} holds scores, others hold answers; make tables of one kind: {USAGE}")
    table = _of_scores(config, models, against, screen) if scored else _of_answers(config, models, against, screen)
    table = _columns(table, config.metrics)
    for path in config.output:
        screen.say(f"table: {write_table(table, path)}")
    if config.figure is not None:
        screen.say(f"drawn: {save_figure(table_figure(table), config.figure)}")
    if not config.output:
        if config.format == "terminal":
            screen.show(table.terminal())
            screen.say(table.caption)
        else:
            print(WRITERS[config.format][1](table), end="")
    return table


USAGE = "hero-plugin table HERO=h-0.jsonl HERO=h-1.jsonl base=b-0.jsonl base=b-1.jsonl --annotations test.json"
Named = dict[str, list[tuple[str, Path]]]
"""{model: [(set, file), ...]}; the set is empty where none is given."""


def named_files(given: Sequence[str]) -> Named:
    """Read NAME=FILE and NAME@SET=FILE.

    Raises ``UserError`` where there is none, or one has no name, is not there, or is given twice.
    """
    if not given:
        raise UserError(f"nothing to tabulate: {USAGE}")
    found: Named = {}
    for text in given:
        left, equals, file = text.partition("=")
        name, _, of = left.partition("@")
        path = Path(file).expanduser()
        if not (equals and name and file):
            raise UserError(f"{text}: give each file the name of its model, as in {USAGE}")
        if not path.is_file():
            hint = " (a shell such as bash or zsh reads {0,1}, outside of quotes)" if "{" in file else ""
            hint = "; a run is tabulated by hero-plugin eval --run" if path.is_dir() else hint
            raise UserError(f"{text}: no such file{hint}")
        if any(path == other for files in found.values() for _, other in files):
            raise UserError(f"{path}: given twice; every training counts once")
        found.setdefault(name, []).append((of, path))
    return found


def seeds_of(name: str, paths: Sequence[Path], several: bool) -> list[int]:
    """Return the seed of each of a model's files: the number in which their names differ.

    ``several``: some model has several, so that the seed of a single one matters. Raises ``UserError`` where the names
    do not say it.
    """
    if not several:
        return [0]
    numbers = [re.findall(r"\d+", str(path)) for path in paths]
    if len(paths) == 1:
        alone = re.findall(r"\d+", paths[0].stem)
        if not alone:
            raise UserError(f"{name}={paths[0]}: which seed is it? Other models have several; name it like b-0.jsonl")
        return [int(alone[-1])]
    alike = {re.sub(r"\d+", "#", str(path)) for path in paths}
    differing = {values for values in zip(*numbers, strict=False) if len(set(values)) > 1}
    if len(alike) > 1 or len(differing) != 1 or len(set(seeds := [int(each) for each in differing.pop()])) < len(paths):
        raise UserError(
            f"{name}: its files are trainings under several seeds, and differ in the seed's number alone, as h-0.jsonl "
            f"and h-1.jsonl do; got {', '.join(map(str, paths))}"
        )
    return seeds


def _is_scores(path: Path) -> bool:
    """Return whether a file is one JSON object, and not of one query."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and not {"qid", "query_id"} & set(found)


def _trainings(models: Named) -> Iterator[tuple[str, str, int, Path]]:
    """Yield model, set, seed and file of each training, in the order of models, sets and seeds."""
    by_set: dict[str, dict[str, list[Path]]] = {name: {} for name in models}
    for name, files in models.items():
        for of, path in files:
            by_set[name].setdefault(of, []).append(path)
    several = any(len(paths) > 1 for sets in by_set.values() for paths in sets.values())
    for name, sets in by_set.items():
        for of, paths in sets.items():
            for seed, path in sorted(zip(seeds_of(name, paths, several), paths, strict=True)):
                yield name, of, seed, path


Found = dict[str, dict[str, dict[int, Any]]]
"""{set: {model: {seed: what was found}}}."""


def _checked(found: Found, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the seeds of each model; raise ``UserError`` where they are not the same on every set."""
    seeds = {name: tuple(sorted({seed for rows in found.values() for seed in rows.get(name, ())})) for name in names}
    for of, rows in found.items():
        for name in names:
            if lacking := set(seeds[name] or (0,)) - set(rows.get(name, ())):
                which = "" if name not in rows else f" under seed {', '.join(map(str, sorted(lacking)))}"
                raise UserError(f"{name} has nothing of the set {of!r}{which}, which others have; give the same sets")
    return seeds


def _of_scores(config: TableConfig, models: Named, against: str, screen: Screen) -> Table:
    """Tabulate files of scores, whose differences are tested over the seeds."""
    flags = ("annotations", "train", "durations", "tokenizer", "on_broken", "resamples", "draw_seeds", "seed")
    if given := [name for name in flags if getattr(config, name) != getattr(TableConfig, name)]:
        flag = f"--{given[0].replace('_', '-')}"
        raise UserError(f"{flag} is for submissions; files of scores have no queries to read or to draw from")
    found: Found = {}
    for name, of, seed, path in _trainings(models):
        for each, values in scores_in(path, of, lambda note: screen.say(f"note: {note}")).items():
            trainings = found.setdefault(each, {}).setdefault(name, {})
            if seed in trainings:
                raise UserError(
                    f"{path}: {name} has scores of the set {each or 'without a name'!r} from another file already; "
                    f"name the sets, as in {name}@iid=FILE {name}@ood=FILE"
                )
            trainings[seed] = values
    seeds = _checked(found, list(models))
    for name in models:
        if seeds[name] != seeds[against]:
            screen.say(f"note: compared by the seeds of both: {seeds_of_both(name, against, seeds)}")
    every = [values for rows in found.values() for each in rows.values() for values in each.values()]
    known = list(dict.fromkeys(metric for values in every for metric in values))
    for metric in known:
        scores = sorted(abs(values[metric]) for values in every if metric in values)
        if 0 < scores[0] <= 1 and scores[-1] > 10:
            screen.say(
                f"note: {metric} is {scores[0]:g} in one file and {scores[-1]:g} in another: a share, and percent?"
            )
    pairs = [(name, against) for name in models if name != against]
    metrics = config.metrics or [metric for metric in METRICS if metric in known] or known
    return trainings_table(summary(found, pairs, metrics))


def scores_in(
    path: Path, of: str = "", note: Callable[[str], None] = lambda text: None
) -> dict[str, Mapping[str, float]]:
    """Return the scores in a JSON file by set.

    It may be what ``hero-plugin eval --json`` wrote of a run or of a submission, a run's ``results.json``,
    ``{set: {score: number}}`` or ``{score: number}``. ``of`` is the set; of a file that names several, the one to take.
    The only set of a file is taken under any name, with a ``note``. Raises ``UserError`` where it is none of these, or
    lacks the set, or holds a number as text.
    """
    found = json.loads(path.read_text("utf-8"))
    if "runs" in found or "submissions" in found:
        raise UserError(f"{path}: holds several models; hero-plugin eval writes their table itself: --table FILE")
    found = found.get("scores", found.get("best", found.get("brief", found)))
    found = found if isinstance(found, dict) else {}
    if not any(isinstance(value, dict) for value in found.values()):
        found = {of: found}
    elif of:
        if of not in found and len(found) > 1:
            raise UserError(f"{path}: no set {of!r}; there are {', '.join(found)}")
        if of not in found:
            (name,) = found
            note(f"{path}: its set is named {name!r}, and is taken as {of!r}, as asked")
        found = {of: found.get(of, next(iter(found.values())))}
    known: dict[str, Mapping[str, float]] = {}
    for name, values in found.items():
        if not isinstance(values, dict):
            continue
        for score, value in values.items():
            if isinstance(value, str) and as_number(value) is not None:
                raise UserError(f"{path}: {score} of the set {name!r} is the text {value!r}: write it as a number")
        known[name] = {score: float(value) for score, value in values.items() if _is_number(value)}
    if not known or not all(known.values()):
        raise UserError(f"{path}: no scores found; write {{set: {{score: number}}}} or {{score: number}}")
    return known


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _of_answers(config: TableConfig, named: Named, against: str, screen: Screen) -> Table:
    """Tabulate submissions, whose differences are drawn over videos and trainings."""
    sets = _Sets(config, screen)
    found: Found = {each: {} for each in sets.records}
    for name, of, seed, path in _trainings(named):
        for each, answers in sets.answers(path, of).items():
            found[each].setdefault(name, {})[seed] = (path, answers)
    seeds = _checked(found, list(named))
    models = []
    for name in named:
        given = {each: [rows[name][seed][1] for seed in seeds[name]] for each, rows in found.items()}
        sources = tuple(str(next(iter(found.values()))[name][seed][0]) for seed in seeds[name])
        compared = () if name == against else (against,)
        models.append(Model(name, sources, seeds[name], answers=given, against=compared))
    report = measure_robustness(models, Draws(config.resamples, config.seed, config.draw_seeds))
    for note in report["notes"]:
        screen.say(f"note: {note}")
    return comparison_table(report)


class _Sets:
    """The sets that submissions answer."""

    def __init__(self, config: TableConfig, screen: Screen) -> None:
        if not config.annotations:
            raise UserError(f"--annotations is missing: what the submissions answer, as in {USAGE}")
        self.screen, self.cut_said = screen, set[str]()
        self.unseen: Callable[[Record], Sequence[str]] | None = unseen_by(config.train, config.tokenizer)
        self.records: dict[str, list[Record]] = {}
        self.paths: dict[str, Path] = {}
        self.left_out: dict[str, set[Any]] = {}
        durations = None if config.durations is None else load_durations(config.durations)
        for name, path in parse_named_paths(config.annotations):
            if name in self.records:
                raise UserError(f"--annotations: two sets are named {name!r}; name them apart, as NAME=PATH")
            self.records[name], self.left_out[name] = read_answered(path, durations, config.on_broken, screen)
            self.paths[name] = path

    def answers(self, path: Path, of: str) -> dict[str, Answers]:
        """Return the answers in a file, by set."""
        if of and of not in self.records:
            raise UserError(f"{path}: no set {of!r}; there are {', '.join(self.records)}")
        with open(path, encoding="utf-8") as stream:
            first = stream.readline()
        if '"query_id"' in first and '"moment"' in first:
            return self._of_run(path, of)
        if not of and len(self.records) > 1:
            raise UserError(f"{path}: which of {', '.join(self.records)} does it answer? Give it as NAME@SET={path}")
        name = of or next(iter(self.records))
        truth, left_out = str(self.paths[name]), self.left_out[name]
        submission = read_submission(path, self.records[name], truth=truth, left_out=left_out)
        for note in submission.notes:
            self.screen.say(f"note: {path}: {note}")
        return {name: submitted_answers(path, submission, self.records[name], self.unseen)}

    def _of_run(self, path: Path, of: str) -> dict[str, Answers]:
        """Read what ``hero-plugin eval --predictions`` wrote of a base without windows of its own, such as EMB."""
        try:
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
            keys = [(line["video_id"], line["query_id"]) for line in lines]
            found = [(_moment(line["moment"]), line.get("sentence")) for line in lines]
            rows = [(line["set"], key, answer) for line, key, answer in zip(lines, keys, found, strict=True)]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not what hero-plugin eval --predictions writes ({error!r})") from error
        names = list(dict.fromkeys(name for name, *_ in rows))
        counts = Counter((name, *key) for name, key, _ in rows)
        if twice := next((key for key, count in counts.items() if count > 1), None):
            raise UserError(f"{path}: answers the query {twice[2]} of the set {twice[0]!r} twice; keep one answer")
        answers = {}
        for name in [of] if of else names:
            if name not in self.records:
                raise UserError(f"{path}: answers to the set {name!r}; --annotations has {', '.join(self.records)}")
            given = {key: answer for each, key, answer in rows if each == name or (of and len(names) == 1)}
            asked = [(each.video_id, each.query_id) for each in self.records[name]]
            missing = [query for video, query in asked if (video, query) not in given]
            unknown = given.keys() - set(asked)
            if missing or unknown:
                named = missing[:5] or [query for _, query in sorted(unknown)[:5]]
                raise UserError(
                    f"{path}: not the queries of {self.paths[name]}: {len(missing)} of its {len(asked)} "
                    f"are missing, {len(unknown)} are unknown to it, such as {', '.join(named)}"
                )
            self._check_sentences(path, name, [given[key][1] for key in asked])
            moments = np.array([given[key][0] for key in asked], dtype=np.float64)
            answers[name] = answers_of(self.records[name], moments, self.unseen)
            self._say_cut(name)
        return answers

    def _check_sentences(self, path: Path, name: str, sentences: Sequence[Any]) -> None:
        """Raise ``UserError`` where lines, which may lack their sentence, answer others than the set's queries.

        Ids are often places in a file, so that those of other queries about the same videos fit, too.
        """
        both = zip(self.records[name], sentences, strict=True)
        others = [(each, said) for each, said in both if said and not same_words(str(said), each.sentence)]
        if others:
            first, said = others[0]
            raise UserError(
                f"{path}: answers other queries than {self.paths[name]} has: the sentences of {len(others)} of "
                f"{len(sentences)} differ, such as query {first.query_id}: {said!r}, not {first.sentence!r}; give the "
                "annotations that it answers"
            )

    def _say_cut(self, name: str) -> None:
        """Say where this differs from ``eval --run``, which cuts moments at the end of their video."""
        ends = ((end, record.duration) for record in self.records[name] for _, end in record.moments)
        beyond = sum(end > duration for end, duration in ends)
        if beyond and name not in self.cut_said:
            self.screen.say(
                f"note: {beyond} moments of the set {name!r} end after their video. They count here as annotated, as "
                "with eval --submission; eval --run cuts them at its end"
            )
            self.cut_said.add(name)


def _moment(value: Any) -> tuple[float, float]:
    """Return a moment of a file; raise ``ValueError`` where it is none."""
    if isinstance(value, list) and len(value) == 2 and all(_is_number(each) and isfinite(each) for each in value):
        return value[0], value[1]
    raise ValueError(f"a moment is [start, end] in seconds, got {value!r}")


def _columns(table: Table, wanted: Sequence[str]) -> Table:
    """Return the table with some columns alone."""
    if unknown := [name for name in wanted if name not in table.columns]:
        raise UserError(f"--metrics {', '.join(unknown)}: not there; there are {', '.join(table.columns or SCORES)}")
    if not wanted:
        return table
    places = [table.columns.index(name) for name in wanted]
    rows = [replace(row, cells=tuple(row.cells[place] for place in places)) for row in table.rows]
    return replace(table, columns=tuple(wanted), rows=rows)
